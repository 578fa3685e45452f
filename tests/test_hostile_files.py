"""Files made to do harm: each ends in a sentence with file and rule, in little memory.

First those that were thought of, then seeded mutations of small good files. What a fuzzer found is
among the first. Nothing here asserts a time; what would not end stops the whole run of tests.
"""

import base64
import contextlib
import io
import json
import pickle
import random
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from swin_dense.checkpoints import files
from swin_dense.datasets import (
    coco_layout,
    coco_panoptic,
    image_files,
    images,
    label_maps,
    large_images,
    panoptic_sets,
)
from swin_dense.datasets.coco_file import open_coco
from swin_dense.datasets.coco_mask_problems import require_drawable
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import reading
from swin_dense.preparation import cityscapes, cvat, labelme, yolo

ROUNDS = 600  # mutations of each kind of file


def png(width, height, bits, colour, rows, extra=()):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        check = zlib.crc32(name + content)
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
    return data


def tiff(width, height, compression=1, block=None, data=b"", following=0):
    """Write one directory of grey bytes; `block` is the size of its tiles."""
    tags = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (277, 1)]
    at = 400
    if block:
        tags += [(322, block[0]), (323, block[1]), (324, at), (325, len(data))]
    else:
        tags += [(273, at), (278, height), (279, len(data))]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    start = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", following)
    return start.ljust(at, b"\0") + data


def refused(read, path):
    """Read a file; return what its refusal says, which names the file, "" where it is read."""
    told = ""
    try:
        read(path)
    except InputError as error:
        told = str(error)
    assert not told or path.name in told
    return told


def read_all(path):
    """Read an image as each of its readers does; return what they say, "" where one reads it."""

    def bands(path):
        image = large_images.open_image(path)
        try:
            for _ in range(min(image.size[0], 64)):
                image.read(1)
        finally:
            image.close()

    said = []
    for read in (
        images.read_rgb,
        images.image_size,
        label_maps.read_label_map,
        lambda path: coco_panoptic.read_segments(path, []),
        bands,
    ):
        said.append(refused(read, path))
    image_files.examine([image_files.ImageFile(path)], "the set")
    return said


EXIF_LOOP = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x08\0\0\0"
JPEG = cv2.imencode(".jpg", np.zeros((8, 10, 3), np.uint8))[1].tobytes()
BOMB = zlib.compress(bytes(60_000_000), 9)
GIF = b"GIF89a" + struct.pack("<HH", 10, 10) + b"\x80\0\0" + bytes(6) + b","
# Name -> bytes, and what the first reader that refuses it says.
IMAGES = {
    "large.png": (png(20000, 20000, 1, 0, b""), "SWIN_DENSE_MOST_IMAGE_PIXELS=4e8"),
    "giant.png": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), "IMAGE_PIXELS"),
    "wide.png": (png(2**31 - 1, 1, 8, 2, b""), "IMAGE_PIXELS"),
    "bits.png": (png(4, 4, 25, 2, bytes(100)), "no image|cut off"),
    "deep_palette.png": (png(4, 4, 16, 3, bytes(100), [(b"PLTE", bytes(768))]), "no image"),
    "none.png": (b"\x89PNG\r\n\x1a\n", "no image|damaged"),
    "profile.png": (
        png(4, 4, 8, 2, bytes(60), [(b"iCCP", b"k\0\0" + BOMB)]), "damaged"),
    "frame.gif": (GIF + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\2\2\x44\1\0;", "PIXELS"),
    "giant.bmp": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24,
                            0, 0, 0, 0, 0, 0), "IMAGE_PIXELS"),
    "giant.tif": (tiff(2**31 - 1, 2**31 - 1), "IMAGE_PIXELS"),
    "lies.tif": (tiff(9000, 9000, data=bytes(20)), "cut off|damaged"),
    "page.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image"),
    "loop.jpg": (JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(EXIF_LOOP) + 2) + EXIF_LOOP
                 + JPEG[2:], ""),
    "loop.tif": (tiff(4, 4, data=bytes(16), following=8), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(tmp_path, name):
    data, says = IMAGES[name]
    path = tmp_path / name
    path.write_bytes(data)
    said = read_all(path)
    assert said[0] == "" if not says else any(part in said[0] for part in says.split("|"))


@pytest.mark.parametrize("block", [None, (16, 16), (2**31 - 16, 2**31 - 16)])
def test_a_strip_or_tile_that_unpacks_to_more(tmp_path, monkeypatch, block):
    """One that unpacks to less than the limit is let pass: it does no harm."""
    monkeypatch.setenv("SWIN_DENSE_MOST_BLOCK_BYTES", "1e6")
    path = tmp_path / "bomb.tif"
    path.write_bytes(tiff(16, 16, 8, block, BOMB))
    says = "BLOCK_BYTES" if block and block[0] > 16 else "a strip or tile of 256 bytes unpacks"
    with pytest.raises(InputError, match=rf"bomb\.tif.*{says}"):
        large_images.open_image(path).read(16)


def test_a_tiff_whose_places_are_a_text(tmp_path):
    """Found by mutations."""
    data = tiff(16, 16, data=bytes(256)).replace(
        struct.pack("<HHII", 273, 4, 1, 400), struct.pack("<HH", 273, 2) + b"\4\0\0\0abc\0"
    )
    (tmp_path / "text.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"text\.tif: the TIFF is cut off or damaged"):
        large_images.open_image(tmp_path / "text.tif")


def test_a_file_of_many_pages_is_its_first(tmp_path):
    one = tiff(4, 4, data=bytes(16))[8:108]
    pages = b"".join(
        one[:74] + struct.pack("<I", 8 + (i + 1) * 78 if i < 19_999 else 0) for i in range(20_000)
    )
    (tmp_path / "many.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages)
    assert large_images.open_image(tmp_path / "many.tif").size == (4, 4)


def test_a_mask_within_a_text_is_an_image_too(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    mask = base64.b64encode(png(20000, 20000, 1, 0, b"")).decode()
    shape = {"label": "a", "shape_type": "mask", "points": [[0, 0], [4, 4]], "mask": mask}
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    with pytest.raises(InputError, match=r"a\.json, shape 0.*SWIN_DENSE_MOST_IMAGE_PIXELS=4e8"):
        labelme.read(tmp_path)


IMAGE = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
ONE = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}
CATEGORY = {"id": 1, "name": "cat"}
DEEP = "[" * 100_000 + "]" * 100_000


def instances(odd="", image=None, category=None, **of_one):
    """Return the text of a set of one object; `odd` stands where a value is 77777."""
    content = {
        "images": [{**IMAGE, **(image or {})}],
        "annotations": [{**ONE, **of_one}],
        "categories": [{**CATEGORY, **(category or {})}],
    }
    return json.dumps(content).replace("77777", odd)


def runs(counts, size=(48, 64)):
    return {"size": list(size), "counts": counts}


SETS = {
    "all deep": (DEEP, "deep in one another"),
    "an entry deep": (instances(DEEP, x=77777), "deep in one another"),
    "an entry deep and odd": (instances(DEEP, x=77777, iscrowd=7), "deep in one another"),
    "an image deep": (instances(DEEP, image={"x": 77777}), "deep in one another"),
    "a category deep": (instances(DEEP, category={"x": 77777}), "deep in one another"),
    "digits of a box": (instances("9" * 5000, bbox=[77777, 1, 2, 3]), "4300 digits"),
    "digits of an id": (instances("9" * 5000, image={"id": 77777}), "4300 digits"),
    "1e400": (instances("1e400", bbox=[77777, 1, 2, 3]), "finite|number"),
    "NaN": (instances("NaN", image={"width": 77777}), "'width' that is not"),
    "a long name": (instances(image={"file_name": "a" * 100_000}), "'file_name' that is not"),
    "a long class": (instances(category={"name": "a" * 100_000}), "at most 4096 characters"),
    "a polygon at 1e9": (instances(segmentation=[[1, 1, 1e9, 1, 1e9, 1e9]]), "polygon-coord"),
    "a polygon at 1e300": (instances(segmentation=[[1, 1, 1e300, 1, -1e300, 9]]), "polygon-coord"),
    "a polygon of no end": (instances(segmentation=[[0, 0, 0, 0, 0, 8.99e307]]), "polygon-coord"),
    "to and fro": (instances(segmentation=[[0, 0, 9e5, 9e5] * 2000]), "mask-too-costly"),
    "many parts": (instances(segmentation=[[0, 0, 60, 0, 60, 40]] * 3000), "mask-too-costly"),
    "two points": (instances(segmentation=[[1, 1, 2, 2]]), "mask-unusable"),
    "1e12 of 3072": (instances(segmentation=runs([0, 10**12])), "run-lengths-too-long"),
    "1e30": (instances(segmentation=runs([0, 10**30])), "run-lengths-too-long"),
    "round the word": (instances(segmentation=runs([2**32, 3072])), "run-lengths-too-long"),
    "below 0": (instances(segmentation=runs([-5, 3077])), "run-lengths-do-not-decode"),
    "text without end": (instances(segmentation=runs("o" * 100_000)), "do-not-decode"),
    "literal deep": (instances(segmentation=runs("b'" + "(" * 99_999 + "'")), "do-not-decode"),
    "1e12 of 1e12": (
        instances(image={"width": 10**6, "height": 10**6},
                  segmentation=runs([0, 10**12], (10**6, 10**6))), "mask-too-costly"),
}  # fmt: skip


@pytest.mark.parametrize("which", SETS)
def test_annotations(tmp_path, which):
    content, says = SETS[which]
    path = tmp_path / "instances.json"
    path.write_text(content)
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError) as told:
        coco_layout.check(path, tmp_path, need_masks=True)
    assert any(part in str(told.value) for part in says.split("|"))
    assert len(str(told.value)) < 3000
    if says == "polygon-coord" or "costly" in says or "too-long" in says:
        with pytest.raises(InputError, match=r"instances\.json"):  # in an evaluation
            require_drawable(open_coco(path), np.array([0]))


def test_a_file_of_wrong_entries_alone_is_not_looked_at_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("swin_dense.datasets.coco_fields.MANY", 300)
    path = tmp_path / "a.json"
    path.write_text(instances().replace(json.dumps([ONE]), json.dumps([{}] * 2000)))
    with pytest.raises(InputError, match=r"looked at up to 300 that are wrong"):
        coco_layout.check(path, tmp_path)


# Mutations.

NUMBERS = (0, 1, 127, 255, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
WORDS = (b"1e400", b"NaN", b"null", b"[]", b"{}", b"-1", b"1e9", b"[[", b"]]", b'"\\ud800"', b"0.5")


def mutated(random, data, others, words=()):
    """Change some bytes: other values, parts left out, doubled, or taken from other files."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at, way = random.randrange(len(found) + 1), random.randrange(7)
        if way == 0:
            found[at : at + 1] = bytes([random.randrange(256)])
        elif way == 1:
            del found[at : at + random.choice((1, 2, 8, 64))]
        elif way == 2:
            found[at:at] = found[at : at + random.choice((1, 4, 16))] * random.choice((1, 3))
        elif way == 3:
            number = struct.pack(random.choice(("<I", ">I")), random.choice(NUMBERS))
            found[at : at + 4] = number
        elif way == 4:
            other = random.choice(others)
            start = random.randrange(len(other))
            found[at : at + random.choice((0, 16))] = other[start : start + 32]
        elif way == 5 and words:
            found[at : at + random.choice((0, 1, 3))] = random.choice(words)
        elif way == 6 and not random.randrange(4):
            del found[at:]
    return bytes(found)


def of_images():
    rgb = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
    found = []
    for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.fromarray(rgb).convert(mode).save(file, form)
            found.append(file.getvalue())
    for how in ({"tile": (16, 16)}, {"rowsperstrip": 3}):
        file = io.BytesIO()
        tifffile.imwrite(file, rgb, compression="zlib", **how)
        found.append(file.getvalue())
    return found


def of_checkpoints():
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}
    found = []
    for older in (False, True):
        file = io.BytesIO()
        content = {"state_dict": state, "meta": {"epoch": 1, "names": ("a", ["b"])}}
        torch.save(content, file, _use_new_zipfile_serialization=not older)
        found.append(file.getvalue())
    arrays = {"model": {name: t.numpy() for name, t in state.items()}, "n": [1, 2.5, None]}
    return found + [pickle.dumps(arrays, protocol) for protocol in (0, 2, 4)]


def read_checkpoint(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about protocols
        for tensor in files.read(path).weights.values():
            tensor.isfinite().all()


def read_set(path):
    for read in (panoptic_sets.examine, coco_layout.check):
        more = (path.parent,) if read is panoptic_sets.examine else ()
        with contextlib.suppress(InputError):
            read(path, path.parent, *more)
    coco_layout.examine(path, path.parent, need_masks=True)
    open_coco(path).as_dict()


KINDS = {
    "image": (of_images, read_all, (".png",), ()),
    "checkpoint": (of_checkpoints, read_checkpoint, (".pth", ".pkl"), ()),
    "set": (
        lambda: [instances(segmentation=s).encode() for s in (
            [[1, 1, 9, 1, 9, 9]], runs([5, 3067]), runs("PPn0"), None
        )], read_set, (".json",), WORDS),
    "config": (
        lambda: [
            b'a = [i for i in range(5)]\nb = {**dict(x=1), "y": a[1:]}\nc = f"{a!r:>5}" * 3\n',
            b'd = dict(type="A", b=[dict(c=2 ** 8 << 3)])\ne = d["b"][0] if 1 else None\n',
            b'{"a": [1, {"b": null}], "c": 1.5}', b"a: &x [1, 2]\nb: *x\nc: {d: 1}\n",
        ], reading.read, (".py", ".json", ".yaml"), WORDS),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_read_or_refused(tmp_path, kind):
    """Whatever else is raised is a fault; its file is left in the folder of the test."""
    made, read, suffixes, words = KINDS[kind]
    seeds, chance = made(), random.Random(f"{kind} 1")
    for _ in range(ROUNDS):
        path = tmp_path / f"it{chance.choice(suffixes)}"
        path.write_bytes(mutated(chance, chance.choice(seeds), seeds, words))
        refused(read, path)
        assert {p.name for p in tmp_path.iterdir()} <= {f"it{suffix}" for suffix in suffixes}


# Other projects' formats.


def a_set(tmp_path, name, content):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    return tmp_path


def a_shape(*points):
    shape = {"label": "a", "shape_type": "polygon", "points": points}
    return json.dumps({"imagePath": "a.png", "shapes": [shape]})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (a_shape([1, 1], [1e9, 1], [1e9, 1e9]), r"a\.json, shape 0: .*pixels, at most 10,000,000"),
        (a_shape([1, 1], [float("nan"), 1], [9, 9]), r"a\.json, shape 0: .*pixels, at most"),
        (a_shape(*[[0, 0], [9e6, 9e6]] * 50), r"a\.json, shape 0: .*MOST_OUTLINE_PIXELS=9e8"),
        (DEEP, r"a\.json: lists lie too deep"),
    ],
)
def test_labelme(tmp_path, content, says):
    with pytest.raises(InputError, match=says):
        labelme.read(a_set(tmp_path, "a.json", content))


@pytest.mark.parametrize("rle", ["0,1000000000000", "-5,17", "1,1"])
def test_cvat(tmp_path, rle):
    mask = f'<mask label="a" rle="{rle}" left="0" top="0" width="4" height="3"/>'
    image = f'<image name="a.png" width="64" height="48">{mask}</image>'
    with pytest.raises(InputError, match=r"annotations\.xml, image a\.png: .*lengths"):
        cvat.read(a_set(tmp_path, "annotations.xml", f"<annotations>{image}</annotations>"))


def test_yolo(tmp_path):
    """Ten parts of ten of ten ... would be shown as a billion."""
    parts = ["a0: &a0 [x, x, x, x]"]
    parts += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 10)]
    with pytest.raises(InputError, match=r"data\.yaml: it repeats parts at 28 places"):
        yolo.read(a_set(tmp_path, "data.yaml", "\n".join([*parts, "names: *a9"])))


def test_cityscapes(tmp_path):
    content = {"imgWidth": 10**6, "imgHeight": 10**6, "objects": []}
    a_set(tmp_path, "a_gtFine_polygons.json", json.dumps(content))
    with pytest.raises(InputError, match=r"polygons\.json: .*SWIN_DENSE_MOST_IMAGE_PIXELS=1e12"):
        cityscapes._painted(tmp_path / "a")
