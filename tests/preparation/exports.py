"""Small exports as each tool writes them: six images, cats and dogs; and what is read of one."""

import base64
import io
import json

import numpy as np
from PIL import Image

from swin_dense.preparation.formats import FORMATS, Asked

SIZES = {"a": (40, 60), "b": (50, 70), "c": (33, 45), "d": (64, 48), "e": (39, 57), "f": (41, 63)}


def picture(path, stem):
    """Write an image of the size of its name, (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = np.random.default_rng(ord(stem))
    Image.fromarray(seed.integers(0, 255, (*SIZES[stem], 3), dtype=np.uint8)).save(path)


def yolo(root, lines=("0 0.5 0.5 0.4 0.5", "1 0.25 0.3 0.2 0.1"), names="{0: cat, 1: big dog}"):
    """All images in one folder; each has the lines."""
    for stem in SIZES:
        picture(root / f"images/{stem}.png", stem)
        (root / "labels").mkdir(exist_ok=True)
        (root / f"labels/{stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    (root / "data.yaml").write_text(f"names: {names}\ntrain: images\nval: images\n")
    return root


def voc(root, parts=None):
    """A cat and a difficult dog in each image; `parts`: stems of train and val."""
    for stem, (h, w) in SIZES.items():
        picture(root / f"JPEGImages/{stem}.png", stem)
        objects = "".join(
            f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x}</xmin>"
            f"<ymin>2</ymin><xmax>20</xmax><ymax>12</ymax></bndbox></object>"
            for name, hard, x in (("cat", 0, 1), ("dog", 1, 3), ("dog", 0, 5))
        )
        path = root / f"Annotations/{stem}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"<annotation><filename>{stem}.png</filename><size><width>{w}</width><height>{h}"
            f"</height><depth>3</depth></size>{objects}</annotation>"
        )
    for part, stems in (parts or {}).items():
        for kind in ("Main", "Segmentation"):
            path = root / f"ImageSets/{kind}/{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{stem}\n" for stem in stems))
    return root


def shape(label, points, kind="polygon", group=None, **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group, **more}


SHAPES = (
    shape("cat", [[1, 1], [20, 1], [20, 20]], group=1),
    shape("cat", [[22, 22], [30, 22], [30, 30]], group=1),
    shape("dog", [[20, 20], [5, 8]], "rectangle"),
    shape("dog", [[20, 20], [20, 25]], "circle"),
    shape("dog", [[0, 0], [9, 9]], "line"),
    shape("__ignore__", [[0, 30], [9, 30], [9, 33]]),
)


def labelme(root, shapes=SHAPES, inside=(), bom="utf-8-sig"):
    """Files in json/, images in imgs/, those of `inside` within their files."""
    for stem, (h, w) in SIZES.items():
        content = {
            "version": "5.4.1", "flags": {"night": True}, "shapes": list(shapes),
            "imagePath": f"..\\imgs\\{stem}.png", "imageData": None,
            "imageHeight": h, "imageWidth": w,
        }  # fmt: skip
        picture(root / f"imgs/{stem}.png", stem)
        if stem in inside:
            path = root / f"imgs/{stem}.png"
            content["imageData"] = base64.b64encode(path.read_bytes()).decode()
            path.unlink()
        (root / "json").mkdir(exist_ok=True)
        (root / f"json/{stem}.json").write_text(json.dumps(content), encoding=bom)
    return root


def mask_png(mask):
    """A mask as LabelMe's brush stores it."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


CVAT_SHAPES = (
    '<box label="dog" occluded="0" xtl="1.0" ytl="2.0" xbr="10.5" ybr="12.0" z_order="0"/>'
    '<polygon label="cat" occluded="0" points="1.0,1.0;5.0,1.0;5.0,7.0" z_order="0"/>'
)


def cvat(root, shapes=CVAT_SHAPES, subsets=None):
    """The XML of CVAT for images beside images/sub/."""
    images = []
    for i, (stem, (h, w)) in enumerate(SIZES.items()):
        picture(root / f"images/sub/{stem}.png", stem)
        subset = f' subset="{subsets[stem]}"' if subsets else ""
        images.append(
            f'<image id="{i}" name="sub/{stem}.png"{subset} width="{w}" height="{h}">{shapes}'
            "</image>"
        )
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
        "<labels><label><name>cat</name></label><label><name>dog</name></label></labels></task>"
        f"</meta>{''.join(images)}</annotations>"
    )
    return root


def read(kind, root, **asked):
    return FORMATS[kind].read(root, Asked(**asked))


def of(gathered, stem):
    """The objects of an image: (label, box rounded) each."""
    (picture,) = [p for p in gathered.pictures if p.name.rsplit("/")[-1].startswith(stem + ".")]
    return picture, [(t.label, [round(v, 2) for v in t.box]) for t in picture.things]


def by_hotcoco(content, stem):
    """The same of a set that hotcoco read."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    (image,) = [i for i in content["images"] if i["file_name"].split("/")[-1].split(".")[0] == stem]
    return [
        (names[e["category_id"]], [round(v, 2) for v in e["bbox"]])
        for e in content["annotations"]
        if e["image_id"] == image["id"]
    ]
