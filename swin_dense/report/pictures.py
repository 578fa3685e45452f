"""Label maps and segments as pictures: colours over the image, and the names of what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

STRENGTH = 0.55  # of the colour over the image
READABLE = 480  # pixels of the shorter side; smaller images are enlarged
SHADES = (1.0, 0.72, 1.25, 0.55, 1.45)  # of one class's colour, so that its objects differ


def enlargement(height: int, width: int) -> int:
    """How many times to enlarge an image so that names drawn over it can be read."""
    return max(1, READABLE // max(1, min(height, width)))


def enlarged(rgb: np.ndarray, factor: int) -> np.ndarray:
    """(H, W, 3) -> (factor * H, factor * W, 3), smooth."""
    height, width = rgb.shape[:2]
    size = (factor * width, factor * height)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def label_overlay(
    rgb: np.ndarray, labels: np.ndarray, names: tuple[str, ...], colours: list[tuple[int, int, int]]
) -> np.ndarray:
    """The image under its label colours, a legend of the classes in it to the right.

    Args:
        rgb: (H, W, 3) uint8.
        labels: (H, W), index into `names` and `colours`.

    Returns:
        (H' >= H, W' > W, 3) uint8; a small image is enlarged.
    """
    factor = enlargement(*labels.shape)
    rgb, labels = enlarged(rgb, factor), labels.repeat(factor, 0).repeat(factor, 1)
    painted = np.asarray(colours, dtype=np.float32)[labels]
    mixed = (rgb * (1 - STRENGTH) + painted * STRENGTH).round().astype(np.uint8)
    counts = np.bincount(labels.ravel(), minlength=len(names))
    present = sorted(np.flatnonzero(counts), key=lambda i: -counts[i])
    rows = [(colours[i], f"{names[i]}  {counts[i] / labels.size:.1%}") for i in present]
    return _beside(mixed, _legend(rows, len(rgb)))


def segment_overlay(
    rgb: np.ndarray,
    segments: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, tuple[int, int, int]],
) -> np.ndarray:
    """The image under the colours of its segments, each with a border, its name and its score.

    Args:
        rgb: (H, W, 3) uint8.
        segments: (H, W), 0 where there is no segment, else the "id" of a row.
        rows: dicts with id, class and score.
        colours: of each class; the objects of one class have shades of it.

    Returns:
        uint8 (H', W', 3); a small image is enlarged.
    """
    factor = enlargement(*segments.shape)
    mixed = enlarged(rgb, factor).astype(np.float32)
    segments = segments.repeat(factor, 0).repeat(factor, 1)
    before: dict[str, int] = {}
    for row in rows:
        place = before[row["class"]] = before.get(row["class"], -1) + 1
        colour = np.array(colours[row["class"]], np.float32) * SHADES[place % len(SHADES)]
        inside = segments == row["id"]
        mixed[inside] *= 1 - STRENGTH
        mixed[inside] += STRENGTH * colour.clip(0, 255)
    mixed[_borders(segments)] = 255
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(int(np.clip(len(segments) // 32, 11, 24)))
    for row in rows:
        text = f"{row['class']} {row['score']:.2f}"
        x, y = map(float, _anchor(segments == row["id"]))
        left, top, right, bottom = draw.textbbox((x, y), text, font=font, anchor="mm")
        x += max(0, 2 - left) - max(0, right + 2 - picture.width)
        y += max(0, 2 - top) - max(0, bottom + 2 - picture.height)
        left, top, right, bottom = draw.textbbox((x, y), text, font=font, anchor="mm")
        draw.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=(0, 0, 0))
        draw.text((x, y), text, fill="white", font=font, anchor="mm")
    return np.asarray(picture)


def _borders(segments: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another segment."""
    edge = np.zeros(segments.shape, bool)
    edge[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    edge[:-1] |= segments[:-1] != segments[1:]
    return edge


def _anchor(inside: np.ndarray) -> tuple[int, int]:
    """(x, y) of a pixel within the region: the middle one of its widest row."""
    widths = inside.sum(axis=1)
    widest = np.flatnonzero(widths == widths.max())
    y = int(widest[len(widest) // 2])
    columns = np.flatnonzero(inside[y])
    return int(columns[len(columns) // 2]), y


def _legend(rows: list[tuple[tuple[int, int, int], str]], height: int) -> np.ndarray:
    size = int(np.clip(height // 24, 11, 28))
    font = ImageFont.load_default(size)
    step = round(size * 1.5)
    width = max(int(font.getlength(text)) for _, text in rows) + 3 * size
    panel = Image.new("RGB", (width, max(height, step * len(rows) + size)), "white")
    draw = ImageDraw.Draw(panel)
    for i, (colour, text) in enumerate(rows):
        top = size // 2 + i * step
        draw.rectangle((size // 2, top, size // 2 + size, top + size), fill=colour, outline="black")
        draw.text((2 * size, top - size // 8), text, fill="black", font=font)
    return np.asarray(panel)


def _beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    height = max(len(left), len(right))
    padded = [
        np.pad(part, ((0, height - len(part)), (0, 0), (0, 0)), constant_values=255)
        for part in (left, right)
    ]
    return np.concatenate(padded, axis=1)
