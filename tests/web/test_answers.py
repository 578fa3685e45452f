"""Bytes of any kind become a view of what a model found in them, or a sentence; nothing else."""

import io
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import swin_dense
from swin_dense.datasets import images, shapes
from swin_dense.errors import InputError
from swin_dense.report.masks import Masks
from swin_dense.report.results import Instances, LabelMap
from swin_dense.task import Task
from swin_dense.web import answers
from swin_dense.web.answers import Answers, Limits

SIZE = (72, 104)


class Finder:
    """A model that finds two objects in whatever it is shown, and keeps what that was."""

    task, classes, weights = Task.INSTANCES, ("bird", "bee"), {"sha256": "f00"}

    def __init__(self):
        self.model, self.shown = torch.nn.Identity(), []

    def predict(self, rgb, score=None):
        self.model(torch.zeros(1))
        self.shown.append(rgb)
        masks = np.zeros((2, *rgb.shape[:2]), bool)
        masks[0, 0, 0] = masks[1, -1, -1] = True
        return Instances(
            image=rgb,
            classes=self.classes,
            boxes=np.array([[0, 0, 1, 1], [0, 0, *rgb.shape[1::-1]]], np.float32),
            scores=np.array([0.75, 0.25], np.float32),
            labels=np.array([1, 0]),
            masks=Masks.of(masks),
        )


class Mapper(Finder):
    task, classes = Task.SEMANTIC, tuple(f"class {i}" for i in range(7))

    def predict(self, rgb, score=None):
        assert score is None
        self.shown.append(rgb)
        return LabelMap(image=rgb, classes=self.classes, labels=np.ones(rgb.shape[:2], np.int64))


def encoded(picture, kind="PNG", **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(shapes.draw(0, "val", 3, SIZE)[0])


@pytest.fixture
def desk():
    limits = Limits(size=300_000, pixels=9_000, seconds=60, waiting=3)
    return Answers({"finder": Finder(), "mapper": Mapper()}, limits)


def huge(width, height):
    """Return a PNG of a few hundred kB at most, of one grey."""
    data = encoded(Image.new("1", (8, 8)))
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("notes.txt", b"some words", "notes.txt: this is no image of a known kind"),
        ("words.jpg", b"some words", "words.jpg: this is no image of a known kind"),
        ("none.png", b"", "none.png: the image file is empty (0 bytes)"),
        ("big.png", huge(20000, 10000), "big.png: this has more than the 0.009 megapixels"),
        ("big.png", huge(101, 91), "big.png: 101x91 pixels are more than the 0.009 megapixels"),
        ("heavy.jpg", bytes(300_001), "heavy.jpg: 0.286 MB, and a file may have 0.286 MB"),
        ("x.eps", POSTSCRIPT, "x.eps: this is no image of a known kind"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg: this is no image"),
        ("../../etc/pass\nwd\u202e", b"no", "passwd: this is no image"),
        ("C:\\a\\..", b"no", "picture: this is no image"),
        ("y" * 200 + ".png", b"no", "y" * 76 + ".png: this is no image"),
    ],
    ids=range(11),
)
def test_what_is_no_picture_or_too_large_is_told_in_a_sentence(desk, name, data, says):
    with pytest.raises(InputError) as told:
        desk.look(data, name, "finder")
    assert str(told.value).startswith(says)
    assert not desk.models["finder"].shown
    with pytest.raises(InputError, match="no such model here"):
        desk.look(data, name, "../finder")


def test_half_a_file_is_told_so(desk, picture):
    data = encoded(picture)
    with pytest.raises(InputError, match=r"cut\.png: the image is cut off or damaged"):
        desk.look(data[: len(data) // 2], "cut.png", "finder")


def test_every_kind_of_picture_is_seen_as_predict_sees_it(desk, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    kinds = {
        "a.png": (picture, "PNG", {}),
        "b.jpg": (picture.transpose(Image.Transpose.ROTATE_90), "JPEG", {"exif": exif}),
        "c.png": (Image.fromarray(grey), "PNG", {}),
        "d.png": (clear, "PNG", {}),
        "e.gif": (picture.convert("P"), "GIF", {}),
        "f.tif": (picture.convert("CMYK"), "TIFF", {}),
        "g.webp": (picture.resize((1, 1)), "WEBP", {}),
        "h.bmp": (picture.convert("1"), "BMP", {}),
    }
    for name, (image, kind, how) in kinds.items():
        data = encoded(image, kind, **how)
        (tmp_path / name).write_bytes(data)
        key = desk.look(data, f"/somewhere/{name}", "finder")
        assert desk.seen(key).result.name == name
        assert desk.seen(key).notes == ()
        np.testing.assert_array_equal(
            desk.models["finder"].shown.pop(), images.as_rgb(tmp_path / name), name
        )


def test_of_a_moving_picture_the_first_is_looked_at_and_that_is_said(desk, picture):
    others = [picture.rotate(angle) for angle in (90, 180)]
    key = desk.look(encoded(picture, "GIF", save_all=True, append_images=others), "a.gif", "finder")
    [note] = desk.seen(key).notes
    assert "several frames" in note
    first = np.asarray(picture.convert("P").convert("RGB")).astype(int)
    assert np.abs(desk.models["finder"].shown[0] - first).mean() < 20
    turned = np.asarray(others[1].convert("RGB")).astype(int)
    assert np.abs(desk.models["finder"].shown[0] - turned).mean() > 20


def test_a_large_picture_is_shrunk_to_what_there_is_memory_for(desk, picture, monkeypatch):
    desk.limits = replace(desk.limits, working=1000)
    data = encoded(picture)
    seen = desk.seen(desk.look(data, "a.png", "mapper"))
    height, width = seen.result.size
    assert 900 < height * width <= 1000
    assert abs(width / height - 104 / 72) < 0.05
    [note] = seen.notes
    assert f"shrunk from 104x72 to {width}x{height} pixels" in note
    assert seen.result.labels.shape == (height, width)
    # Seven classes of 8 bytes may have 400 pixels, a hundred objects 28.
    monkeypatch.setattr(answers, "MEMORY", 7 * 8 * 400)
    height, width = desk.seen(desk.look(data, "a.png", "mapper")).result.size
    assert 340 < height * width <= 400
    height, width = desk.seen(desk.look(data, "a.png", "finder")).result.size
    assert 18 <= height * width <= 28


def test_what_was_found_is_shown_again_without_a_look(desk, picture):
    key = desk.look(encoded(picture), "a b.png", "finder")
    assert len(desk.show(key).rows) == 2
    assert [row.name for row in desk.show(key, 0.5).rows] == ["bee"]
    assert [row.name for row in desk.show(key, 0.0, ["bird"]).rows] == ["bird"]
    assert desk.show(key, 0.5, []).rows == ()
    assert len(desk.models["finder"].shown) == 1
    whole, outlines = map(json.loads, desk.written(key, desk.show(key, 0.5)))
    assert (whole["image"], whole["model"]) == ("a b.png", "finder")
    assert whole["weights sha256"] == "f00"
    assert [row["class"] for row in whole["instances"]] == ["bee"]
    assert [f["properties"]["class"] for f in outlines["features"]] == ["bee"]
    other = desk.look_again(key, "mapper")
    assert desk.seen(other).result.name == "a b.png"
    np.testing.assert_array_equal(desk.models["mapper"].shown[0], np.asarray(picture))
    mine = desk.look_at(np.asarray(picture), "mine", "mapper")
    assert len(desk.show(mine, 0.9).rows) == 1
    for call in (desk.show, desk.seen, lambda key: desk.look_again(key, "finder")):
        with pytest.raises(InputError, match="no longer held here"):
            call("another key")


def test_the_oldest_are_forgotten(desk, picture, monkeypatch):
    data = encoded(picture)
    monkeypatch.setattr(answers, "KEPT", 3)
    keys = [desk.look(data, "a.png", "finder") for _ in range(3)]
    desk.show(keys[0])  # looked at last
    keys.append(desk.look(data, "a.png", "finder"))
    with pytest.raises(InputError, match="no longer held"):
        desk.show(keys[1])
    assert all(desk.show(keys[i]).rows for i in (0, 2, 3))
    monkeypatch.setattr(answers, "KEPT_BYTES", 72 * 104 * 3)  # less than a picture and its masks
    last = desk.look(data, "a.png", "finder")
    assert list(desk._seen) == [last]


def test_of_ten_at_once_each_has_an_answer(desk, picture):
    """Three may be in line: each of the others is told so, and all of the three are served."""
    data, told, go_on = encoded(picture), [], threading.Event()
    desk.models["finder"].model.register_forward_pre_hook(lambda *_: go_on.wait(10) and None)

    def ask():
        try:
            told.append(len(desk.show(desk.look(data, "a.png", "finder")).rows))
        except InputError as error:
            told.append(str(error)[:5])

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    while len(told) < 7:
        time.sleep(0.001)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert told == ["Busy:"] * 7 + [2] * 3


def test_a_look_that_takes_too_long_is_ended(picture):
    desk = Answers({"finder": Finder()}, Limits(seconds=0.0))
    with pytest.raises(InputError, match="more than 0 seconds"):
        desk.look(encoded(picture), "a.png", "finder")


@pytest.mark.parametrize("name", ["mask_rcnn_swin_nano", "upernet_swin_nano"])
def test_a_trained_model_gives_what_predict_gives(name, picture, tmp_path):
    """The threshold is laid over what one look found; it is what a look with it finds."""
    model = swin_dense.load(name, ROOT / f"demo/weights/{name}.safetensors", device="cpu")
    big = picture.resize((208, 144))
    big.save(tmp_path / "big.png")
    desk = Answers({name: model})
    key = desk.look((tmp_path / "big.png").read_bytes(), "big.png", name)
    scored = model.task is not Task.SEMANTIC
    for least in (0.05, 0.6):
        expected = model.predict(tmp_path / "big.png", least if scored else None)
        view = desk.show(key, least)
        found = json.loads(desk.written(key, view)[0])
        assert found.items() >= expected.to_json().items()
        assert json.loads(desk.written(key, view)[1]) == json.loads(
            json.dumps(expected.to_geojson())
        )
        assert len(expected) == len(view.rows) > 0
        if scored:
            np.testing.assert_array_equal(view.picture, expected.draw())
