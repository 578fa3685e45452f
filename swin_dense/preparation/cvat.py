"""Read "CVAT for images 1.1": one XML file for all images.

hotcoco reads boxes and polygons of it; masks, ellipses, groups, turned boxes and subsets it does
not, so this is our own; the tests compare with it.
"""

from __future__ import annotations

import collections
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from swin_dense.errors import InputError, MissingInputError
from swin_dense.file_limits import IMAGE_PIXELS
from swin_dense.preparation.gathered import (
    Finder,
    Gathered,
    Picture,
    ShapeError,
    Thing,
    ellipse,
    from_mask,
    from_polygons,
    measured,
    merged,
    turned_box,
)

LEFT_OUT = ("polyline", "points", "cuboid", "skeleton", "tag")
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val"}


def read(root: Path) -> Gathered:
    """Read all images of the file and their objects; shapes of a group are one object.

    Raises:
        InputError: there is no such file, it is of a video, or an image is nowhere.
    """
    path = _file(root)
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not XML, or cut off ({error}). Export it again.") from error
    if tree.tag != "annotations":
        raise InputError(f"{path}: this is XML of {tree.tag!r}, not of CVAT's annotations.")
    if tree.find("track") is not None:
        raise InputError(
            f"{path}: this is 'CVAT for video'. Export the task as 'CVAT for images 1.1' with "
            "images, which has each frame by itself."
        )
    gathered = Gathered()
    finder = Finder(path.parent)
    names = [e.text.strip() for e in tree.findall(".//meta//label/name") if e.text]
    for image in tree.findall("image"):
        picture = _picture(path, image, finder)
        groups: dict[object, list[Thing]] = {}
        for i, shape in enumerate(image):
            thing = _thing(f"{path}, image {picture.name}", shape, picture, gathered.left_out)
            if thing is not None:
                group = shape.get("group_id") or "0"
                key = (thing.label, f"g{group}" if group != "0" else i)
                groups.setdefault(key, []).append(thing)
        picture.things = [merged(g, picture.height, picture.width) for g in groups.values()]
        gathered.pictures.append(picture)
    if not gathered.pictures:
        raise InputError(f"{path}: it has no image. Export the task again, with images.")
    used = {t.label for p in gathered.pictures for t in p.things}
    gathered.classes = tuple(dict.fromkeys([*names, *sorted(used - set(names))]))
    return gathered


def _file(root: Path) -> Path:
    found = [root / "annotations.xml"] if (root / "annotations.xml").is_file() else []
    found = found or sorted(root.glob("*.xml")) or sorted(root.rglob("annotations.xml"))
    if len(found) != 1:
        raise MissingInputError(
            f"{root}: one annotations.xml is needed, there are {len(found)}. Export the task as "
            "'CVAT for images 1.1' with images."
        )
    return found[0]


def _picture(path: Path, image: ElementTree.Element, finder: Finder) -> Picture:
    called = image.get("name", "")
    name = finder.find(called, path)
    if name is None:
        raise InputError(
            f"{path}: its image {called!r} is not in {finder.root}. Export with images, or put "
            "them into images/ beside the file."
        )
    height, width = measured(finder.by_name[name])
    stated = (int(image.get("height", 0)), int(image.get("width", 0)))
    if stated != (height, width):
        raise InputError(
            f"{path}: it says {stated[1]}x{stated[0]} pixels for {called}, the image has "
            f"{width}x{height} (width x height, upright). Put the image there that was labelled."
        )
    part = PARTS.get((image.get("subset") or "").lower(), "")
    short = name.removeprefix("images/")
    return Picture(finder.by_name[name], short, part, height, width)


def _thing(
    where: str, shape: ElementTree.Element, picture: Picture, left_out: collections.Counter
) -> Thing | None:
    kind, label = shape.tag, shape.get("label", "")
    if kind in LEFT_OUT:
        left_out[f"shapes of kind {kind}: no area"] += 1
        return None
    try:
        if kind == "box":
            box = [float(shape.attrib[k]) for k in ("xtl", "ytl", "xbr", "ybr")]
            turned = float(shape.get("rotation") or 0)
            if turned:
                return from_polygons(label, [turned_box(box, turned)])
            return Thing(label, (box[0], box[1], box[2] - box[0], box[3] - box[1]))
        if kind == "polygon":
            flat = [float(v) for p in shape.attrib["points"].split(";") for v in p.split(",")]
            if len(flat) < 6:
                left_out["polygons with fewer than 3 points"] += 1
                return None
            return from_polygons(label, [flat])
        if kind == "ellipse":
            x, y, rx, ry = (float(shape.attrib[k]) for k in ("cx", "cy", "rx", "ry"))
            turned = float(shape.get("rotation") or 0)
            return from_polygons(label, [ellipse(x, y, rx, ry, turned)])
        if kind == "mask":
            return from_mask(label, _mask(shape, picture))
    except ShapeError as error:
        raise InputError(f"{where}: {error}") from error
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{where}: a {kind} that is not in the format ({error}): {dict(shape.attrib)!r:.120}."
        ) from error
    raise InputError(f"{where}: a shape of kind {kind!r} is not known. Leave it out.")


def _mask(shape: ElementTree.Element, picture: Picture) -> np.ndarray:
    """Read a mask: lengths of runs, row after row of its box, the first of what is not in it."""
    left, top, width, height = (int(shape.attrib[k]) for k in ("left", "top", "width", "height"))
    lengths = [int(v) for v in shape.attrib["rle"].split(",")]
    if min(lengths) < 0 or sum(lengths) != width * height:
        raise ValueError("its lengths are not those of its box")
    if width * height > IMAGE_PIXELS.most:
        raise ShapeError(IMAGE_PIXELS.rule(width * height))
    flat = np.repeat(np.arange(len(lengths)) % 2, lengths).astype(np.uint8)
    part = flat.reshape(height, width)
    whole = np.zeros((picture.height, picture.width), np.uint8)
    inside = whole[top : top + height, left : left + width]
    inside[:] = part[: inside.shape[0], : inside.shape[1]]
    return whole
