"""Objects moved a little within their own image (InstaBoost, arXiv 1908.07801).

Objects whose boxes overlap move as one, so that a rider stays on the horse. The hole they leave is
filled from around it, and they are pasted again nearby, larger groups first, smoothed at the rim.
This is what the defaults of the authors' package do, but for its change of colours.

Letters: N masks, h w an image. x counts to the right, y down, from the centre of the first pixel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from swin_dense.datasets.label_maps import IGNORE

BORDER = 10  # pixels: an object this near a border is taken for one that the border cuts
RIM = 5  # side of the square by which a hole is widened: masks are seldom exact
REACH = 2  # pixels of half the image's size around a place that it is filled from


@dataclasses.dataclass(frozen=True)
class Move:
    """What happens to a group of objects, about the middle of its box."""

    right: float = 0.0  # pixels
    down: float = 0.0
    zoom: float = 1.0
    turn: float = 0.0  # degrees, clockwise


@dataclasses.dataclass(frozen=True)
class Limits:
    """How far a move may go; the authors' values."""

    shift: float = 1 / 15  # share of the width to the sides, of the height up and down
    zoom: tuple[float, float] = (0.8, 1.2)  # of its size
    turn: float = 1.0  # degrees either way


@dataclasses.dataclass
class _Pasted:
    """A group at its new place, seen through the window that it fits in."""

    window: tuple[slice, slice]
    colours: np.ndarray  # (window, 3) uint8
    opacity: np.ndarray  # (window) uint8, 255 within, less at the rim
    masks: np.ndarray  # (members, window) bool
    labels: np.ndarray | None  # (window) uint8


def extents(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(h, w) with a pixel in it -> the box around its pixels: x1, y1, x2, y2, the last two one
    beyond."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def together(boxes: Sequence[tuple[int, int, int, int]]) -> list[list[int]]:
    """Group boxes that overlap, directly or by way of others; a group lists their indices."""
    if not boxes:
        return []
    low, high = np.split(np.array(boxes), 2, axis=1)
    meet = (np.maximum(low[:, None], low) < np.minimum(high[:, None], high)).all(-1)
    groups: list[list[int]] = []
    left = set(range(len(boxes)))
    while left:
        group, found = set(), {min(left)}
        while found:
            group |= found
            found = set(np.flatnonzero(meet[list(found)].any(0)).tolist()) - group
        groups.append(sorted(group))
        left -= group
    return groups


def draw(
    box: tuple[int, int, int, int], size: tuple[int, int], limits: Limits, random: Any
) -> Move:
    """Draw a move for a group with this box in an image of this (height, width).

    A group that a border cuts goes on being cut there: it never shrinks, turns or moves inwards.

    Args:
        random: numpy.random or a generator of it.
    """
    x1, y1, x2, y2 = box
    zoom = random.uniform(*limits.zoom)
    right = random.uniform(-1, 1) * limits.shift * (x2 - x1)
    down = random.uniform(-1, 1) * limits.shift * (y2 - y1)
    turn = random.uniform(-1, 1) * limits.turn
    left_cut, top_cut = x1 < BORDER, y1 < BORDER
    right_cut, bottom_cut = x2 > size[1] - BORDER, y2 > size[0] - BORDER
    if left_cut or top_cut or right_cut or bottom_cut:
        zoom, turn = max(zoom, 1.0), 0.0
        right = min(max(right, 0.0 if right_cut else -math.inf), 0.0 if left_cut else math.inf)
        down = min(max(down, 0.0 if bottom_cut else -math.inf), 0.0 if top_cut else math.inf)
    return Move(right, down, zoom, turn)


def boosted(
    image: np.ndarray,
    masks: np.ndarray,
    limits: Limits,
    random: Any,
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Move every group of objects at random; arguments and answer as those of `moved`."""
    boxes = [extents(mask) for mask in masks]
    moves = []
    for group in together(boxes):
        corners = np.array([boxes[i] for i in group])
        low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
        box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        moves.append((group, draw(box, image.shape[:2], limits, random)))
    return moved(image, masks, moves, labels)


def moved(
    image: np.ndarray,
    masks: np.ndarray,
    moves: Sequence[tuple[Sequence[int], Move]],
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Move groups of objects; one that would leave the image stays where it is, with its group.

    Args:
        image: (h, w, 3) uint8.
        masks: (N, h, w) uint8 of 0 and 1, a pixel or more in each.
        moves: places of masks, and what happens to them together.
        labels: (h, w) uint8, a class at each pixel.

    Returns:
        new ones. A mask is what one sees of its object: another may cover it, even as a whole.
        Labels move with their objects; what these leave behind is IGNORE.
    """
    pasted = [(group, _paste(image, masks[list(group)], labels, move)) for group, move in moves]
    leaving = [(group, part) for group, part in pasted if part.masks.any((1, 2)).all()]
    leaving.sort(key=lambda pair: -int(pair[1].masks.sum()))
    going = sorted(i for group, _ in leaving for i in group)
    before = _union(masks[going])
    masks = masks.copy()
    masks[going] = 0
    image = _without(image, before, kept=_union(masks))
    if labels is not None:
        labels = np.where(before, np.uint8(IGNORE), labels)
    for group, part in leaving:
        covered = _union(part.masks)
        masks[(slice(None), *part.window)][:, covered] = 0
        masks[(list(group), *part.window)] = part.masks
        _lay_over(image[part.window], part.colours, part.opacity)
        if labels is not None and part.labels is not None:
            labels[part.window][covered] = part.labels[covered]
    return image, masks, labels


def _paste(image: np.ndarray, masks: np.ndarray, labels: np.ndarray | None, move: Move) -> _Pasted:
    """Masks of one group at their new place, with what lies under them."""
    whole = _union(masks)
    x1, y1, x2, y2 = extents(whole)
    middle = np.array([x1 + x2 - 1, y1 + y2 - 1]) / 2
    angle = math.radians(move.turn)
    turn = move.zoom * np.array(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    offset = middle + (move.right, move.down) - turn @ middle
    corners = np.array([(x, y) for x in (x1 - 1, x2) for y in (y1 - 1, y2)]) @ turn.T + offset
    height, width = whole.shape
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, (width - 1, height - 1))
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 1, low + 1, (width, height))
    matrix = np.column_stack([turn, offset - low])
    size = (int(high[0] - low[0]), int(high[1] - low[1]))

    def warped(source: np.ndarray, how: int, border: int = cv2.BORDER_CONSTANT) -> np.ndarray:
        return cv2.warpAffine(source, matrix, size, flags=how, borderMode=border)

    own = None if labels is None else np.where(whole, labels, np.uint8(IGNORE))
    opacity = [warped(255 * mask, cv2.INTER_LINEAR) for mask in masks]
    return _Pasted(
        window=(slice(low[1], high[1]), slice(low[0], high[0])),
        colours=warped(image, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE),
        opacity=np.max(opacity, axis=0),
        masks=np.stack(opacity) >= 128,
        labels=None if own is None else warped(own, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE),
    )


def _union(masks: np.ndarray) -> np.ndarray:
    """(N, h, w) -> (h, w) bool."""
    return np.asarray(masks.any(0))


def _lay_over(image: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> None:
    """Change the image where there is any opacity."""
    within = opacity == 255
    image[within] = colours[within]
    rim = (opacity > 0) & ~within
    share = opacity[rim, None] / 255
    image[rim] = np.rint(image[rim] * (1 - share) + colours[rim] * share)


def _without(image: np.ndarray, hole: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Fill the hole from what surrounds it, at half the image's size, which is four times as fast.

    Args:
        hole: (h, w) bool.
        kept: (h, w) bool, stays as it is beside the hole.
    """
    image = image.copy()
    hole = cv2.dilate(hole.astype(np.uint8), np.ones((RIM, RIM), np.uint8))
    hole[kept] = 0
    height, width = hole.shape
    half = (-(-width // 2), -(-height // 2))
    unknown = cv2.resize(hole.astype(np.float32), half, interpolation=cv2.INTER_AREA) > 0
    if unknown.all() or not unknown.any():
        return image  # nothing to fill, or nothing to fill it from
    small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
    small = cv2.inpaint(small, unknown.astype(np.uint8), REACH, cv2.INPAINT_NS)
    filled = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    image[hole > 0] = filled[hole > 0]
    return image
