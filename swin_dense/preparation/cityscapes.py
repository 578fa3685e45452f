"""Read Cityscapes: label maps of the 19 classes that are judged, or the objects of 8 of them.

The numbers are those of the authors' table: labelIds of 34 kinds, instanceIds of a thing's labelId
times 1000 plus its number. Where these PNGs are not there, the polygons are painted in their order.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from swin_dense.datasets.label_maps import IGNORE as IGNORED
from swin_dense.datasets.label_maps import read_label_map
from swin_dense.errors import InputError, MissingInputError
from swin_dense.file_limits import IMAGE_PIXELS
from swin_dense.preparation.gathered import Gathered, Picture, from_mask, measured

IDS = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
CLASSES = tuple(IDS.values())
THINGS = {24, 25, 26, 27, 28, 31, 32, 33}
IMAGE, LABELS = "_leftImg8bit.png", ("_gtFine_labelIds.png", "_gtFine_instanceIds.png")
POLYGONS = "_gtFine_polygons.json"


def read_label_maps(root: Path) -> Gathered:
    """Read train and val; each label map holds the place of its class among CLASSES, or 255."""
    gathered = Gathered(classes=CLASSES, table=CLASSES)
    for picture, stem in _pictures(root, gathered):
        picture.labels = functools.partial(_label_map, stem)
        gathered.pictures.append(picture)
    return gathered


def read(root: Path) -> Gathered:
    """Read the objects of train and val; what is labelled as a group is a crowd."""
    gathered = Gathered(classes=tuple(name for i, name in IDS.items() if i in THINGS))
    for picture, stem in _pictures(root, gathered):
        ids = _instance_ids(stem)
        for value in np.unique(ids).tolist():
            kind = value // 1000 if value >= 1000 else value
            if kind in THINGS:
                picture.things.append(from_mask(IDS[kind], ids == value, crowd=value < 1000))
        gathered.pictures.append(picture)
    return gathered


def _pictures(root: Path, gathered: Gathered):  # type: ignore[no-untyped-def]
    """Yield each image of train and val, and its labels' path up to "_gtFine"."""
    images, labels = root / "leftImg8bit", root / "gtFine"
    if not (images.is_dir() and labels.is_dir()):
        raise MissingInputError(
            f"{root}: it needs leftImg8bit/ and gtFine/, of leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip."
        )
    found = 0
    for part in ("train", "val"):
        for path in sorted((images / part).rglob(f"*{IMAGE}")):
            name = path.relative_to(images / part).as_posix().removesuffix(IMAGE)
            height, width = measured(path)
            found += 1
            yield Picture(path, f"{name}.png", part, height, width), labels / part / name
    if not found:
        raise MissingInputError(f"{images}: no train/CITY/*{IMAGE} in it. Unpack the archive anew.")


def _label_map(stem: Path) -> np.ndarray:
    path = Path(f"{stem}{LABELS[0]}")
    ids = read_label_map(path) if path.is_file() else _painted(stem) % 1000
    ids = np.where(ids < 0, 0, ids)
    table = np.full(1000, IGNORED, np.uint8)
    table[list(IDS)] = np.arange(len(IDS))
    return table[ids]


def _instance_ids(stem: Path) -> np.ndarray:
    path = Path(f"{stem}{LABELS[1]}")
    if path.is_file():
        return read_label_map(path)
    painted = _painted(stem)
    return np.where(painted >= 1000, painted % 1000 * 1000 + painted // 1000 - 1, painted)


def _painted(stem: Path) -> np.ndarray:
    """Paint the polygons: labelId, plus 1000 times a number from 1 for each single thing."""
    path = Path(f"{stem}{POLYGONS}")
    if not path.is_file():
        raise MissingInputError(f"{stem}: neither {LABELS[0]} nor {POLYGONS} is there.")
    numbers = {name: i for i, name in IDS.items()}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        pixels = content["imgWidth"] * content["imgHeight"]
        if pixels > IMAGE_PIXELS.most:
            raise ValueError(IMAGE_PIXELS.rule(pixels))
        canvas = Image.new("I", (content["imgWidth"], content["imgHeight"]))
        draw, singles = ImageDraw.Draw(canvas), 0
        for thing in content["objects"]:
            label = thing["label"]
            number = numbers.get(label.removesuffix("group"), 0)
            if number in THINGS and not label.endswith("group"):
                singles += 1
                number += 1000 * singles
            draw.polygon([tuple(point) for point in thing["polygon"]], fill=number)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise InputError(f"{path}: not a file of Cityscapes' polygons ({error}).") from error
    return np.asarray(canvas).astype(np.int64)
