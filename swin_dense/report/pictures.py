"""Predictions as pictures: colours over the image, and the names of what is there."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from swin_dense.report import lettering
from swin_dense.report.masks import Masks

STRENGTH = 0.55  # of the colour over the image, where it is all there is to see;
OBJECT = 0.4  # of that of an object, whose box and outline tell it as well
READABLE = 480  # pixels of the shorter side; smaller images are enlarged,
LARGEST = 8192  # but the longer side never above this
TEXT = 1 / 36  # height of a name, and
LINE = 1 / 240  # width of the line around a box, as shares of the shorter side
MARGIN = 2  # pixels around a name
Colour = tuple[int, int, int]
Frame = tuple[int, int, int, int]  # left, top, right, bottom; the last two are pixels of it too


def png(rgb: np.ndarray) -> bytes:
    """Return a picture (H, W, 3) as a file."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, format="PNG")
    return file.getvalue()


def enlargement(height: int, width: int) -> int:
    """Say how many times to enlarge an image so that names drawn over it can be read."""
    return max(1, min(READABLE // max(1, min(height, width)), LARGEST // max(1, height, width)))


def enlarged(rgb: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge an image smoothly: (H, W, 3) -> (factor * H, factor * W, 3)."""
    height, width = rgb.shape[:2]
    size = (factor * width, factor * height)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def label_overlay(
    rgb: np.ndarray, labels: np.ndarray, names: tuple[str, ...], colours: list[Colour]
) -> np.ndarray:
    """Draw the image under its label colours, a legend of the classes in it to the right.

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


def instance_overlay(
    rgb: np.ndarray,
    boxes: np.ndarray,
    masks: Masks | None,
    texts: Sequence[str],
    colours: Sequence[Colour],
) -> np.ndarray:
    """Draw the image under its objects: mask, box and text of each in the colour of its class.

    Lines lie around the boxes, so that they hide nothing of an object unless the image ends there.
    Of objects that cover one another, the first is on top.

    Args:
        rgb: (H, W, 3) uint8.
        boxes: (N, 4), left, top, right, bottom in pixels of `rgb`.
        masks: of each object, or None.
        texts, colours: of each object.

    Returns:
        (H', W', 3) uint8; a small image is enlarged.
    """
    factor = enlargement(*rgb.shape[:2])
    canvas = enlarged(rgb, factor).astype(np.float32)
    shape = canvas.shape[:2]
    line = max(1, round(min(shape) * LINE))
    frames = [_around(box * factor, line, shape) for box in boxes]
    for i in reversed(range(len(boxes))):
        if masks is not None:
            rows, columns = (slice(s.start * factor, s.stop * factor) for s in masks.crops[i].place)
            mask = masks.crops[i].pixels.repeat(factor, 0).repeat(factor, 1)
            _paint(canvas[rows, columns], mask, colours[i])
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for i in reversed(range(len(boxes))):
        draw.rectangle(frames[i], outline=colours[i], width=line)
    labels = _Labels(picture)
    for frame, text, colour in zip(frames, texts, colours, strict=True):
        labels.beside(frame, text, colour)
    labels.draw(draw)
    return np.asarray(picture)


def objects_overview(
    rgb: np.ndarray,
    boxes: np.ndarray,
    masks: Masks | None,
    colours: Sequence[Colour],
    rows: list[tuple[Colour, str]],
) -> np.ndarray:
    """Draw objects, many and small, without names, and a legend to the right.

    Args:
        rgb, boxes, masks, colours: as for `instance_overlay`.
        rows: colour and text of the legend.
    """
    canvas = rgb.astype(np.float32)
    if masks is not None:
        for crop, colour in zip(reversed(masks.crops), reversed(colours), strict=True):
            _paint(canvas[crop.place], crop.pixels, colour)
    picture = Image.fromarray(canvas.round().astype(np.uint8))
    if masks is None:
        draw = ImageDraw.Draw(picture)
        for box, colour in zip(reversed(boxes), reversed(colours), strict=True):
            draw.rectangle(_around(box, 1, rgb.shape[:2]), outline=colour)
    painted = np.asarray(picture)
    return with_legend(painted, rows) if rows else painted


def with_legend(picture: np.ndarray, rows: list[tuple[Colour, str]]) -> np.ndarray:
    """Put a legend to the right of a picture: a row for each colour and its name."""
    return _beside(picture, _legend(rows, len(picture)))


def segment_overlay(
    rgb: np.ndarray,
    segments: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    colours: Mapping[str, Colour],
) -> np.ndarray:
    """Draw the image under its segments, each with a border, its name and its score.

    Args:
        rgb: (H, W, 3) uint8.
        segments: (H, W), 0 where there is no segment, else the "id" of a row.
        rows: dicts with id, class and, where there is one, score.
        colours: of each class.

    Returns:
        (H', W', 3) uint8; a small image is enlarged.
    """
    factor = enlargement(*segments.shape)
    mixed = enlarged(rgb, factor).astype(np.float32)
    segments = segments.repeat(factor, 0).repeat(factor, 1)
    for row in rows:
        colour = np.array(colours[row["class"]], np.float32)
        _mix(mixed, segments == row["id"], colour, STRENGTH)
    mixed[_borders(segments)] = 255
    picture = Image.fromarray(mixed.round().astype(np.uint8))
    labels = _Labels(picture)
    for row in rows:
        score = f" {row['score']:.2f}" if "score" in row else ""
        labels.over(_anchor(segments == row["id"]), f"{row['class']}{score}")
    labels.draw(ImageDraw.Draw(picture))
    return np.asarray(picture)


class _Label(NamedTuple):
    frame: Frame
    text: str
    paper: Colour
    font: lettering.Font


class _Labels:
    """Names to write over a picture: inside it, and never over one another.

    A name for which there is no free place beside its object is left out; those that come first
    are placed first.
    """

    def __init__(self, picture: Image.Image) -> None:
        self.width, self.height = picture.size
        self.size = max(11, round(min(picture.size) * TEXT))
        self.written: list[_Label] = []

    def beside(self, frame: Frame, text: str, paper: Colour) -> None:
        """Put a text above a frame, else below it, else within it."""
        width, height = self._sides(text)
        left, top, right, bottom = frame
        columns = (min(left, max(0, self.width - width)), right + 1 - width)
        rows = (top - height, bottom + 1, top, bottom + 1 - height)
        within = self._inside((columns[0], top), width, height)
        inside = [
            spot
            for x in columns
            for y in rows
            if self._inside(spot := (x, y), width, height) == spot
        ]
        self._put([*inside, within], text, paper)

    def over(self, point: tuple[int, int], text: str) -> None:
        """Put a text with its middle on a point (x, y), else a little higher or lower."""
        width, height = self._sides(text)
        x, y = point[0] - width // 2, point[1] - height // 2
        spots = [(x, y + step * height) for step in (0, -1, 1, -2, 2)]
        self._put([self._inside(spot, width, height) for spot in spots], text, (0, 0, 0))

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        """Write them."""
        for frame, text, paper, font in self.written:
            bright = np.dot(paper, (0.299, 0.587, 0.114)) > 140  # as the eye weighs colours
            draw.rectangle(frame, fill=paper)
            at = (frame[0] + MARGIN, frame[1] + MARGIN)
            draw.text(at, text, fill="black" if bright else "white", font=font)

    def _put(self, spots: Sequence[tuple[int, int]], text: str, paper: Colour) -> None:
        width, height = self._sides(text)
        for x, y in spots:
            if not self._taken(x, y, width, height):
                font, text = lettering.fitting(text, self.size)
                frame = (x, y, x + width - 1, y + height - 1)
                self.written.append(_Label(frame, text, paper, font))
                return

    def _sides(self, text: str) -> tuple[int, int]:
        # All names of a script are equally high, whichever letters they have.
        font, text = lettering.fitting(text, self.size)
        width, height = round(font.getlength(text)), round(font.getbbox("Ågj|" + text)[3])
        return width + 2 * MARGIN + 1, height + 2 * MARGIN

    def _inside(self, place: tuple[int, int], width: int, height: int) -> tuple[int, int]:
        """Move a place so that the text does not leave the picture on the right or below."""
        x, y = min(place[0], self.width - width), min(place[1], self.height - height)
        return max(0, x), max(0, y)

    def _taken(self, x: int, y: int, width: int, height: int) -> bool:
        return any(
            x <= right and left < x + width and y <= bottom and top < y + height
            for (left, top, right, bottom), *_ in self.written
        )


def _around(box: np.ndarray, line: int, shape: tuple[int, int]) -> Frame:
    """Return the frame of a line around a box, within a picture of (height, width)."""
    left, top = (int(np.floor(side)) - line for side in box[:2])
    right, bottom = (int(np.ceil(side)) - 1 + line for side in box[2:])
    left, right = (min(max(x, 0), shape[1] - 1) for x in (left, right))
    top, bottom = (min(max(y, 0), shape[0] - 1) for y in (top, bottom))
    return left, top, max(left, right), max(top, bottom)


def _paint(canvas: np.ndarray, mask: np.ndarray, colour: Colour) -> None:
    """Lay a mask over the canvas (H, W, 3), its outermost pixels in the full colour."""
    _mix(canvas, mask, np.array(colour, np.float32), OBJECT)
    padded = np.pad(mask, 1)
    within = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    canvas[mask & ~within] = colour


def _mix(canvas: np.ndarray, inside: np.ndarray, colour: np.ndarray, strength: float) -> None:
    canvas[inside] *= 1 - strength
    canvas[inside] += strength * colour


def _borders(segments: np.ndarray) -> np.ndarray:
    """Mark the pixels whose right or lower neighbour is of another segment."""
    edge = np.zeros(segments.shape, bool)
    edge[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    edge[:-1] |= segments[:-1] != segments[1:]
    return edge


def _anchor(inside: np.ndarray) -> tuple[int, int]:
    """Return (x, y) of a pixel within the region: the middle one of its widest row."""
    widths = inside.sum(axis=1)
    widest = np.flatnonzero(widths == widths.max())
    y = int(widest[len(widest) // 2])
    columns = np.flatnonzero(inside[y])
    return int(columns[len(columns) // 2]), y


def _legend(rows: list[tuple[Colour, str]], height: int) -> np.ndarray:
    size = int(np.clip(height // 24, 11, 28))
    fonts = [lettering.fitting(text, size) for _, text in rows]
    step = round(size * 1.5)
    width = max(int(font.getlength(text)) for font, text in fonts) + 3 * size
    panel = Image.new("RGB", (width, max(height, step * len(rows) + size)), "white")
    draw = ImageDraw.Draw(panel)
    for i, ((colour, _), (font, text)) in enumerate(zip(rows, fonts, strict=True)):
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
