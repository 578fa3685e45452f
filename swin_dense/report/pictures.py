"""Label maps as pictures: colours over the image, and a legend that names them."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

STRENGTH = 0.55  # of the colour over the image
READABLE = 480  # pixels of the shorter side; smaller images are enlarged


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
