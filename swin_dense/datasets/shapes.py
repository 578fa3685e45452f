"""The shapes set: pictures to train and test on that come from a seed instead of a download.

Circles, squares, triangles, stars, rings and crosses of all sizes lie over one another on
patterned ground. The outline is the class. Colour is a hint, as in the world: nineteen of twenty
objects have the hue of their class. Texture, size and place tell nothing, and at equal size all
shapes cover the same area. Later objects hide earlier ones; masks are the visible parts, and no
object is left with less than `MIN_VISIBLE` of itself.

`write` makes one folder that holds the set in three layouts:

    shapes.json                            version and parameters
    images/{train,val}/000001.png          RGB
    annotations/instances_{train,val}.json COCO instances, masks as compressed RLE
    annotations/panoptic_{train,val}.json  COCO panoptic: the shapes are things, the ground is stuff
    annotations/panoptic_{train,val}/000001.png
    label_maps/{train,val}/000001.png      8 bits: 0 background, 1..6 the shapes, in `LABELS` order
    classes.txt                            the name of label 0, 1, ... one per line

Letters: h w an image, x y pixel centres relative to an object.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from swin_dense.errors import InputError

CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
PALETTE = (
    (230, 75, 60),
    (60, 130, 220),
    (65, 175, 90),
    (245, 180, 50),
    (150, 90, 200),
    (40, 185, 190),
)
LABELS = ("background", *CLASSES)
LABEL_PALETTE = ((70, 70, 75), *PALETTE)
# Category ids have gaps and do not start at 0 or 1, like those of many real files.
CATEGORY_IDS = dict(zip(CLASSES, (3, 5, 8, 12, 13, 21), strict=True))
GROUND_ID = 34  # of the background, in the panoptic files alone

VERSION = 2  # raised whenever the same parameters give other files
SPLITS = ("train", "val")
MIN_VISIBLE = 0.65  # of the object inside the image
MIN_PIXELS = 40
# Object sizes (square root of the area, pixels) within the three ranges of COCO's AP, and how
# often each is drawn. Large ones are drawn more often than they stay, for they rarely fit.
SIZE_RANGES = ((14, 32), (32, 72), (98, 112))
SIZE_CHANCES = (0.30, 0.58, 0.12)


@dataclasses.dataclass(frozen=True)
class ShapesSet:
    """Where the written set lies. A split is "train" or "val"."""

    root: Path

    def annotation_file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def panoptic_file(self, split: str) -> Path:
        return self.root / "annotations" / f"panoptic_{split}.json"

    def segment_dir(self, split: str) -> Path:
        return self.root / "annotations" / f"panoptic_{split}"

    def image_dir(self, split: str) -> Path:
        return self.root / "images" / split

    def label_dir(self, split: str) -> Path:
        return self.root / "label_maps" / split

    @property
    def classes_file(self) -> Path:
        return self.root / "classes.txt"


def write(
    root: str | Path,
    seed: int = 0,
    train: int = 400,
    val: int = 100,
    size: tuple[int, int] = (160, 208),
) -> ShapesSet:
    """Make the set in a folder of `root` named by the parameters, or find it there.

    Image i of a split depends on the seed, the split, i and the size only: a larger set begins
    with the images of a smaller one, and no image of "val" is drawn from the stream of "train".

    Args:
        train, val: images per split.
        size: (height, width) of every image, at least 64 each.
    """
    parameters = _check_parameters(seed, train, val, size)
    height, width = size
    name = f"shapes-v{VERSION}-seed{seed}-train{train}-val{val}-{height}x{width}"
    target = Path(root) / name
    if target.exists():
        return _found(target, parameters)
    # Written beside its place and renamed when complete: an interrupted run leaves no half set.
    draft = Path(root) / f".{name}-{uuid.uuid4().hex[:8]}"
    try:
        _write_all(ShapesSet(draft), parameters)
        try:
            os.rename(draft, target)
        except OSError:
            if not target.exists():
                raise
            return _found(target, parameters)  # another process was faster
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return ShapesSet(target)


def draw(seed: int, split: str, index: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Draw one picture.

    Returns:
        uint8 (h, w, 3) RGB; (h, w) the object seen at each pixel, 0 for the background, k for the
        k-th object; (k,) the class index of each object.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    canvas, owner = _ground(rng, size), np.zeros(size, np.int32)
    classes: list[int] = []
    areas: list[int] = []  # of each object as it was when nothing lay over it
    wanted = int(rng.integers(2, 8))
    for object_size in sorted((_random_size(rng, size) for _ in range(wanted)), reverse=True):
        for _ in range(6):
            kind = int(rng.integers(len(CLASSES)))
            window, inside = _place(rng, kind, object_size, size)
            covered = inside < 0
            left = np.bincount(owner[window][~covered], minlength=len(classes) + 1)
            left += np.bincount(owner.ravel(), minlength=len(classes) + 1)
            left -= np.bincount(owner[window].ravel(), minlength=len(classes) + 1)
            enough = all(
                left[k + 1] >= max(MIN_PIXELS, MIN_VISIBLE * a) for k, a in enumerate(areas)
            )
            if enough and covered.sum() >= max(MIN_PIXELS, MIN_VISIBLE * object_size**2):
                classes.append(kind)
                areas.append(int(covered.sum()))
                owner[window][covered] = len(classes)
                _paint(rng, canvas, window, inside, kind)
                break
    return np.rint(canvas).astype(np.uint8), owner, np.array(classes, np.int64)


# Outlines: signed distance to the outline of a shape of radius 1, negative inside.


def _star(x: np.ndarray, y: np.ndarray, points: int, inner: float) -> np.ndarray:
    """`points` tips at radius 1, notches at radius `inner`; a polygon if those lie on its sides."""
    half = np.pi / points
    angle = np.abs(np.arctan2(y, x) % (2 * half) - half)  # 0 at a notch, `half` at a tip
    radius = np.hypot(x, y)
    along, across = radius * np.cos(half - angle), radius * np.sin(half - angle)
    edge_x, edge_y = inner * np.cos(half) - 1, inner * np.sin(half)
    return ((along - 1) * edge_y - across * edge_x) / np.hypot(edge_x, edge_y)


def _polygon(x: np.ndarray, y: np.ndarray, sides: int) -> np.ndarray:
    return _star(x, y, sides, np.cos(np.pi / sides))


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1


def _ring(x: np.ndarray, y: np.ndarray, hole: float) -> np.ndarray:
    return np.abs(np.hypot(x, y) - (1 + hole) / 2) - (1 - hole) / 2


def _cross(x: np.ndarray, y: np.ndarray, arm: float) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 1, np.minimum(x, y) - arm)


def _outline(rng: np.random.Generator, kind: int) -> tuple[Callable[..., np.ndarray], float, float]:
    """Draw a shape of this class: distance function, area, and the reach of its farthest point."""
    name = CLASSES[kind]
    proportion = rng.random()  # drawn for every class, so that all use up as many numbers
    if name == "circle":
        return _circle, np.pi, 1.0
    if name in ("square", "triangle"):
        sides = 4 if name == "square" else 3
        area = sides * np.sin(2 * np.pi / sides) / 2
        return lambda x, y: _polygon(x, y, sides), area, 1.0
    if name == "star":
        inner = 0.38 + 0.12 * proportion
        return lambda x, y: _star(x, y, 5, inner), 5 * inner * np.sin(np.pi / 5), 1.0
    if name == "ring":
        hole = 0.50 + 0.15 * proportion
        return lambda x, y: _ring(x, y, hole), np.pi * (1 - hole**2), 1.0
    arm = 0.26 + 0.14 * proportion
    return lambda x, y: _cross(x, y, arm), 8 * arm - 4 * arm**2, float(np.hypot(1, arm))


def _random_size(rng: np.random.Generator, size: tuple[int, int]) -> float:
    """Square root of an area, in pixels: a range by chance, then uniform in the logarithm."""
    fits = 0.85 * min(size)
    band = int(np.searchsorted(np.cumsum(SIZE_CHANCES), rng.random()))
    low, high = (min(limit, fits) for limit in SIZE_RANGES[min(band, 2)])
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _place(
    rng: np.random.Generator, kind: int, object_size: float, size: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Put a shape somewhere: the part of the image around it, and there the distance in pixels."""
    distance, area, reach = _outline(rng, kind)
    radius = object_size / np.sqrt(area)
    turn = rng.uniform(0, 2 * np.pi)
    # Centres keep off the border by half of what fits, so that some objects are cut by it.
    margins = [min(0.7 * radius * reach, 0.4 * side) for side in size]
    centre = [
        rng.uniform(margin, side - margin) for margin, side in zip(margins, size, strict=True)
    ]
    half = radius * reach + SHADOW_REACH
    rows, columns = (
        slice(max(0, int(at - half)), min(side, int(at + half) + 2))
        for at, side in zip(centre, size, strict=True)
    )
    y, x = np.ogrid[rows, columns]
    y, x = (y + 0.5 - centre[0]) / radius, (x + 0.5 - centre[1]) / radius
    cos, sin = np.cos(turn), np.sin(turn)
    return (rows, columns), distance(cos * x + sin * y, cos * y - sin * x) * radius


# Colour.

# How often a pattern is drawn: flat, gradient, stripes, checks, dots, clouds.
OBJECT_PATTERNS = (0.30, 0.22, 0.12, 0.12, 0.12, 0.12)
GROUND_PATTERNS = (0.30, 0.30, 0.08, 0.08, 0.08, 0.16)
USUAL_HUE = 0.95  # share of objects in the hue of their class, a sixth of the circle each
SHADOW_SHIFT = (3, 2)  # rows, columns
SHADOW_BLUR = 5.0
SHADOW_REACH = 8
SHADOW_DEPTH = 0.45


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    first, second = _two_colours(rng, saturation=(0.05, 0.5), value=(0.3, 0.95))
    return _blend(first, second, 0.7 * _texture(rng, x, y, GROUND_PATTERNS))


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    window: tuple[slice, slice],
    inside: np.ndarray,
    kind: int,
) -> None:
    """Cast a soft shadow, then lay the shape over it with a smooth edge."""
    behind = canvas[window]
    down, right = SHADOW_SHIFT
    shadow = np.zeros_like(inside)
    shadow[down:, right:] = np.clip(0.5 - inside[:-down, :-right] / SHADOW_BLUR, 0, 1)
    behind *= 1 - SHADOW_DEPTH * shadow[..., None]
    surroundings = behind[inside < 2].mean(axis=0)
    hue = (kind + rng.uniform(-0.35, 0.35)) / len(CLASSES)
    usual = hue if rng.random() < USUAL_HUE else None
    for _ in range(8):  # colours that stand out, if a few tries give any
        first, second = _two_colours(rng, saturation=(0.35, 0.95), value=(0.45, 1.0), hue=usual)
        if np.abs(_blend(first, second, np.array(0.4)) - surroundings).sum() > 150:
            break
    y, x = np.mgrid[window]
    cover = np.clip(0.5 - inside, 0, 1)[..., None]
    behind += cover * (_blend(first, second, _texture(rng, x, y, OBJECT_PATTERNS)) - behind)


def _two_colours(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
    hue: float | None = None,
) -> list[np.ndarray]:
    """Two RGB colours, 0 to 255, that go together: near hues (any, or `hue`), unlike brightness."""
    spread = 0.12 if hue is None else 0.03
    hue = rng.random() if hue is None else hue
    rich, bright = rng.uniform(*saturation), rng.uniform(*value)
    step = 0.25 + 0.2 * rng.random()
    other = bright - step if bright > sum(value) / 2 else bright + step
    hues = (hue, hue + rng.uniform(-spread, spread))
    return [
        255 * np.clip(b, 0, 1) * (1 - rich * np.clip(1 - 3 * _hue_distance(h), 0, 1))
        for h, b in zip(hues, (bright, other), strict=True)
    ]


def _hue_distance(hue: float) -> np.ndarray:
    """Return how far a hue is from cyan, magenta and yellow, in turns: (3,), 0 to 0.5."""
    away = (hue - np.array([0.5, 5 / 6, 1 / 6])) % 1
    return np.minimum(away, 1 - away)


def _blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + share[..., None] * (second - first)


def _texture(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, chances: tuple[float, ...]
) -> np.ndarray:
    """Share of the second colour at each pixel, 0 to 1: one of six patterns, turned at random."""
    pattern = int(np.searchsorted(np.cumsum(chances)[:-1], rng.random(), side="right"))
    turn, period, phase = rng.uniform(0, 2 * np.pi), rng.uniform(7, 24), rng.uniform(0, 24)
    cos, sin = np.cos(turn), np.sin(turn)
    along, across = cos * x + sin * y + phase, cos * y - sin * x + phase
    wave = 2 * np.pi / period
    edge = period / 6  # how sharp the borders within a pattern are
    if pattern == 0:
        return np.zeros(x.shape)
    if pattern == 1:
        low, high = along.min(), along.max()
        return (along - low) / max(high - low, 1)
    if pattern == 2:
        return np.clip(0.5 + edge * np.sin(wave * along), 0, 1)
    if pattern == 3:
        return np.clip(0.5 + edge * np.sin(wave * along) * np.sin(wave * across), 0, 1)
    if pattern == 4:
        cell = np.hypot((along % period) - period / 2, (across % period) - period / 2)
        return np.clip(0.5 + 0.3 * period - cell, 0, 1)
    return _clouds(rng, x.shape, period)


def _clouds(rng: np.random.Generator, shape: tuple[int, ...], period: float) -> np.ndarray:
    """Random values on a coarse grid, smoothly filled in."""
    height, width = shape
    grid = rng.random((int(height / period) + 3, int(width / period) + 3))
    image = Image.fromarray(grid.astype(np.float32))
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


# Files.


def _check_parameters(seed: int, train: int, val: int, size: tuple[int, int]) -> dict:
    if len(size) != 2 or min(size) < 64:
        raise InputError(
            f"shapes: size is (height, width) of at least 64 pixels each, got {tuple(size)}. "
            "Smaller images leave no room for large objects."
        )
    if train < 1 or val < 1 or seed < 0:
        raise InputError(
            f"shapes: every split needs an image and the seed is not negative, got "
            f"train={train}, val={val}, seed={seed}. Give at least 1, 1 and 0."
        )
    return {"version": VERSION, "seed": seed, "train": train, "val": val, "size": list(size)}


def _found(target: Path, parameters: dict) -> ShapesSet:
    stamp = target / "shapes.json"
    try:
        complete = json.loads(stamp.read_text()) == parameters
    except (OSError, ValueError):
        complete = False
    if not complete:
        raise InputError(
            f"{target}: the folder exists, and its shapes.json does not say that it holds the set "
            f"with {parameters}. Remove or rename the folder, then run this again."
        )
    return ShapesSet(target)


def _write_all(shapes: ShapesSet, parameters: dict) -> None:
    for split in SPLITS:
        for place in (shapes.image_dir, shapes.label_dir, shapes.segment_dir):
            place(split).mkdir(parents=True)
        instances, panoptic = _write_split(shapes, split, parameters)
        for path, content in (
            (shapes.annotation_file(split), instances),
            (shapes.panoptic_file(split), panoptic),
        ):
            path.write_text(json.dumps(content, separators=(",", ":")))
    shapes.classes_file.write_text("\n".join(LABELS) + "\n")
    (shapes.root / "shapes.json").write_text(json.dumps(parameters) + "\n")


def _write_split(shapes: ShapesSet, split: str, parameters: dict) -> tuple[dict, dict]:
    """Write the pictures and maps; return what the instance and the panoptic file hold."""
    height, width = parameters["size"]
    images: list[dict] = []
    annotations: list[dict] = []
    panoptic: list[dict] = []
    for number in range(1, parameters[split] + 1):
        name = f"{number:06d}.png"
        picture, owner, classes = draw(parameters["seed"], split, number, (height, width))
        labels = np.concatenate([[0], classes + 1]).astype(np.uint8)[owner]
        Image.fromarray(picture).save(shapes.image_dir(split) / name, compress_level=4)
        Image.fromarray(labels).save(shapes.label_dir(split) / name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for position, kind in enumerate(classes, start=1):
            annotation = {"id": len(annotations) + 1, "image_id": number}
            annotations.append(annotation | _annotate(owner == position, int(kind)))
        segments, coloured = _segments(owner, classes)
        Image.fromarray(coloured).save(shapes.segment_dir(split) / name, compress_level=4)
        panoptic.append({"image_id": number, "file_name": name, "segments_info": segments})
    things = [{"id": CATEGORY_IDS[name], "name": name} for name in CLASSES]
    ground = {"id": GROUND_ID, "name": LABELS[0], "isthing": 0}
    kinds = [ground, *({**category, "isthing": 1} for category in things)]
    return (
        {"images": images, "annotations": annotations, "categories": things},
        {"images": images, "annotations": panoptic, "categories": kinds},
    )


def _segments(owner: np.ndarray, classes: np.ndarray) -> tuple[list[dict], np.ndarray]:
    """Return the panoptic entries of one picture and the colours that number its segments.

    A number names the category in its red part and the object in its green part.
    """
    categories = [GROUND_ID, *(CATEGORY_IDS[CLASSES[kind]] for kind in classes)]
    ids = np.array([category + 256 * k for k, category in enumerate(categories)])
    segments = []
    for k, category in enumerate(categories):
        mask = owner == k
        if mask.any():  # the ground of a small picture may be hidden
            segment = {"id": int(ids[k]), "category_id": category, "iscrowd": 0}
            segments.append(segment | _extent(mask))
    coloured = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1)[owner]
    return segments, coloured.astype(np.uint8)


def _extent(mask: np.ndarray) -> dict:
    """Box (left, top, width, height) and area of one visible mask, in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = (int(v) for v in (rows[0], rows[-1], columns[0], columns[-1]))
    box = [left, top, right - left + 1, bottom - top + 1]
    return {"bbox": box, "area": int(mask.sum())}


def _annotate(mask: np.ndarray, kind: int) -> dict:
    """Return the COCO entry of one visible mask."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "category_id": CATEGORY_IDS[CLASSES[kind]],
        **_extent(mask),
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()},
        "iscrowd": 0,
    }
