"""The masks of one image, each held in the box of its own pixels.

A hundred masks of a photo of 12 megapixels are 1.2 GB as one array of bools; held so they take
what the objects cover.
"""

import operator
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, overload

import numpy as np
from pycocotools import mask as coco_mask


class Crop(NamedTuple):
    """The pixels (h, w) of a mask around what is in it, and where they lie in the image."""

    top: int
    left: int
    pixels: np.ndarray

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the image that it covers."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class Masks:
    """N masks (H, W) of bools: `masks[i]` and `for mask in masks` give them whole.

    `np.asarray(masks)` is all of them, (N, H, W); `masks[2:5]` and `masks[scores > 0.5]` are some.

    Attributes:
        size: height and width of the image in pixels.
        crops: what is held of each.
    """

    dtype = np.dtype(bool)

    def __init__(self, size: tuple[int, int], crops: Iterable[Crop]) -> None:
        self.size, self.crops = size, tuple(crops)

    @classmethod
    def of(cls, masks: np.ndarray, order: Iterable[int] | None = None) -> "Masks":
        """Take over an array (N, H, W), all of it or its masks in an order of places in it."""
        height, width = masks.shape[1:]
        places = range(len(masks)) if order is None else order
        return cls((height, width), [_cropped(masks[i]) for i in places])

    @property
    def shape(self) -> tuple[int, int, int]:
        """N, H, W."""
        return (len(self.crops), *self.size)

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each."""
        return np.array([np.count_nonzero(crop.pixels) for crop in self.crops], np.int64)

    def run_lengths(self) -> list[dict[str, Any]]:
        """Encode each as COCO does: runs down the columns of the image, as text."""
        return [_run_lengths(crop, self.size) for crop in self.crops]

    def shrunk(self, factor: int) -> "Masks":
        """Return masks of a smaller image: a pixel is in one if any it stands for was."""
        height, width = (-(-side // factor) for side in self.size)
        return Masks((height, width), [_shrunk(crop, factor) for crop in self.crops])

    def __len__(self) -> int:
        return len(self.crops)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, place: slice | np.ndarray) -> "Masks": ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Masks(self.size, self.crops[place])
        try:
            crop = self.crops[operator.index(place)]
        except TypeError:
            return self._some(place)
        whole = np.zeros(self.size, bool)
        whole[crop.place] = crop.pixels
        return whole

    def _some(self, places: Any) -> "Masks":
        """Return those of a list, an array or a tensor of places, or of a bool for each."""
        if isinstance(places, tuple) or (chosen := np.asarray(places)).ndim != 1:
            raise IndexError(
                "masks: give a place, a slice, or a list of places or of bools for the first axis; "
                "np.asarray(masks) is the whole array (N, H, W)."
            )
        if not len(chosen):
            chosen = chosen.astype(int)
        return Masks(self.size, [self.crops[i] for i in np.arange(len(self.crops))[chosen]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all of them, (N, H, W); always an array of its own."""
        whole = np.zeros(self.shape, self.dtype if dtype is None else dtype)
        for each, crop in zip(whole, self.crops, strict=True):
            each[crop.place] = crop.pixels
        return whole

    def __repr__(self) -> str:
        height, width = self.size
        return f"<{len(self)} masks of {width}x{height} pixels>"


def _cropped(mask: np.ndarray) -> Crop:
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return Crop(0, 0, np.zeros((0, 0), bool))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Crop(top, left, mask[top:bottom, left:right].astype(bool))


def _shrunk(crop: Crop, factor: int) -> Crop:
    height, width = crop.pixels.shape
    top, left = crop.top // factor, crop.left // factor
    before = crop.top - top * factor, crop.left - left * factor
    behind = -(before[0] + height) % factor, -(before[1] + width) % factor
    padded = np.pad(crop.pixels, ((before[0], behind[0]), (before[1], behind[1])))
    rows, columns = (side // factor for side in padded.shape)
    blocks = padded.reshape(rows, factor, columns, factor)
    return Crop(top, left, np.asarray(blocks.any((1, 3))))


def _run_lengths(crop: Crop, size: tuple[int, int]) -> dict[str, Any]:
    """Encode a mask without making it whole."""
    height, width = size
    edges = np.diff(np.pad(crop.pixels.astype(np.int8), ((1, 1), (0, 0))), axis=0).T
    first = crop.left * height + crop.top
    starts, ends = (
        first + columns * height + rows for columns, rows in map(np.nonzero, (edges > 0, edges < 0))
    )
    apart = starts[1:] != ends[:-1]  # a run may go on at the top of the next column
    starts, ends = starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]]
    counts = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0, append=height * width)
    counts = counts[:-1] if counts[-1] == 0 else counts
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, *size)
    return {"size": [height, width], "counts": encoded["counts"].decode()}
