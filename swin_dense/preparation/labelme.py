"""Read LabelMe: a JSON file for each image, its shapes drawn by hand.

No kept library reads it without others of its own, so this is ours.
"""

from __future__ import annotations

import base64
import binascii
import collections
import json
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets.images import (
    DECODING_FAILED,
    TooManyPixelsError,
    decode_rgb,
    open_image,
)
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation.gathered import (
    BACKGROUND,
    IGNORE,
    Finder,
    Gathered,
    Picture,
    Thing,
    ellipse,
    from_mask,
    from_polygons,
    located,
    measured,
    merged,
)

LEFT_OUT = ("line", "linestrip", "point", "points")
IMAGE_KINDS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp", b"RIFF": ".webp"}


def read(root: Path) -> Gathered:
    """Read every LabelMe file in the folder and those inside it; shapes of a group are one object.

    Raises:
        InputError: there is none, or one is not in the format, or its image is nowhere.
    """
    gathered = Gathered()
    finder = Finder(root)
    for path in sorted(root.rglob("*.json")):
        if any(p.startswith(".") for p in path.relative_to(root).parts):
            continue
        content = _content(path)
        if content is None:
            gathered.left_out["JSON files without shapes"] += 1
            continue
        picture = _picture(path, content, finder)
        groups: dict[Any, list[Thing]] = {}
        for i, shape in enumerate(content["shapes"]):
            where = f"{path}, shape {i}"
            with located(where):
                thing = _thing(where, shape, picture, gathered.left_out)
            if thing is not None:
                group = shape.get("group_id")
                groups.setdefault((thing.label, i if group is None else f"g{group}"), []).append(
                    thing
                )
        picture.things = [merged(g, picture.height, picture.width) for g in groups.values()]
        gathered.pictures.append(picture)
    if not gathered.pictures:
        raise MissingInputError(f"{root}: no LabelMe file (JSON with shapes) in the folder.")
    twice, count = collections.Counter(p.name for p in gathered.pictures).most_common(1)[0]
    if count > 1:
        raise InputError(f"{root}: {count} files are about the image {twice}. Keep one of them.")
    gathered.classes = _classes(root, gathered)
    _box_alone(gathered)
    return gathered


def _content(path: Path) -> dict[str, Any] | None:
    """Return a file's content; None where it is JSON of another kind."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"{path}: lists lie too deep in one another. Export it again.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON, or cut off ({error}). Copy it again.") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return None
    return content


def _picture(path: Path, content: dict[str, Any], finder: Finder) -> Picture:
    called = str(content.get("imagePath") or path.stem)
    name = finder.find(called, path) or finder.find(path.stem, path)
    if name is not None:
        height, width = measured(finder.by_name[name])
        picture = Picture(finder.by_name[name], name, "", height, width)
    else:
        picture = _inside(path, content, called, finder.root)
    stated = (content.get("imageHeight"), content.get("imageWidth"))
    if all(isinstance(v, int) for v in stated) and stated != (picture.height, picture.width):
        raise InputError(
            f"{path}: it says {stated[1]}x{stated[0]} pixels, {called} has "
            f"{picture.width}x{picture.height} (width x height, upright). Shapes would lie "
            "elsewhere: put the image there that was labelled."
        )
    return picture


def _inside(path: Path, content: dict[str, Any], called: str, root: Path) -> Picture:
    """Take the image out of the file."""
    if not content.get("imageData"):
        raise InputError(
            f"{path}: its image {called!r} is neither in {root} nor within the file (imageData). "
            "Put it beside the file."
        )
    try:
        data = base64.b64decode(content["imageData"], validate=False)
    except (binascii.Error, TypeError, ValueError) as error:
        raise InputError(f"{path}: imageData is no base64 text ({error}).") from error
    rgb = decode_rgb(data, f"{path}, imageData")
    suffix = next((s for start, s in IMAGE_KINDS.items() if data.startswith(start)), ".png")
    name = path.relative_to(root).with_suffix(suffix).as_posix()
    return Picture(None, name, "", rgb.shape[0], rgb.shape[1], data=data)


def _thing(where: str, shape: Any, picture: Picture, left_out: collections.Counter) -> Thing | None:
    """Read one shape; None for one that is no area, or no object."""
    try:
        label, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: a shape has a label and points of two numbers, got {shape!r:.80}."
        ) from error
    if kind in LEFT_OUT:
        left_out[f"shapes of kind {kind}: no area"] += 1
        return None
    flat = [v for point in points for v in point]
    xs, ys = flat[0::2], flat[1::2]
    needed = {"rectangle": 2, "circle": 2, "mask": 2}.get(kind, 3)
    areas = ("polygon", "oriented_rectangle", "rectangle", "circle", "mask")
    if kind in areas and len(points) < needed:
        left_out[f"shapes of kind {kind} with fewer than {needed} points"] += 1
        return None
    if kind == "rectangle":
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        thing = Thing(label, (left, top, right - left, bottom - top))
    elif kind in ("polygon", "oriented_rectangle"):
        thing = from_polygons(label, [flat])
    elif kind == "circle":
        radius = float(np.hypot(xs[1] - xs[0], ys[1] - ys[0]))
        thing = from_polygons(label, [ellipse(xs[0], ys[0], radius, radius)])
    elif kind == "mask" and shape.get("mask"):
        thing = from_mask(label, _mask(where, shape["mask"], points, picture))
    else:
        raise InputError(
            f"{where}: shapes are polygon, rectangle, circle, mask, oriented_rectangle, and line "
            f"and point, which are left out; got {kind!r}."
        )
    return thing


def _mask(where: str, text: str, points: list, picture: Picture) -> np.ndarray:
    """Read a mask drawn by a brush: a PNG of a part of the image, at the first point."""
    try:
        part = np.asarray(open_image(base64.b64decode(text), f"{where}, mask")) != 0
    except TooManyPixelsError:
        raise
    except (InputError, *DECODING_FAILED, binascii.Error) as error:
        raise InputError(f"{where}: its mask is no PNG in base64 ({error}).") from error
    whole = np.zeros((picture.height, picture.width), np.uint8)
    left, top = (round(v) for v in points[0])
    inside = whole[max(top, 0) : top + part.shape[0], max(left, 0) : left + part.shape[1]]
    inside[:] = part[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]
    return whole


def _classes(root: Path, gathered: Gathered) -> tuple[str, ...]:
    """Return the names in the order of labels.txt, else of the alphabet."""
    used = {t.label for p in gathered.pictures for t in p.things} - {BACKGROUND, IGNORE}
    path = root / "labels.txt"
    if not path.is_file():
        return tuple(sorted(used))
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    names = tuple(n for n in lines if n and n not in (BACKGROUND, IGNORE))
    unknown = sorted(used - set(names))
    if unknown:
        raise InputError(f"{path}: it lacks {unknown}, which shapes are labelled with. Add them.")
    return names


def _box_alone(gathered: Gathered) -> None:
    """Make outlines of rectangles where others have outlines; else the set is one of boxes."""
    things = [t for p in gathered.pictures for t in p.things]
    boxes = [t for t in things if t.masks is None]
    if not boxes or len(boxes) == len(things):
        return
    for t in boxes:
        x, y, w, h = t.box
        t.masks = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    gathered.notes.append(
        f"{len(boxes)} rectangles are taken for outlines, as {len(things) - len(boxes)} other "
        "shapes have outlines"
    )
