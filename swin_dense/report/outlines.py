"""The outline of a mask as polygons that run along the edges of its pixels.

Such a polygon has exactly the mask's area; one through the middles of the outermost pixels, as
contour finders give, is half a pixel short on every side.
"""

from collections import defaultdict

import cv2
import numpy as np

Ring = list[tuple[int, int]]  # corners (x, y) in pixels; the last is the first again
RIGHT = 0
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (x, y); one plus 1 is the next turn to the right


def polygons(mask: np.ndarray, left: int = 0, top: int = 0) -> list[list[Ring]]:
    """Trace a mask: its parts, of which two that touch at a corner alone are two.

    Args:
        mask: (H, W) of bools.
        left, top: of the mask's first pixel in the image.

    Returns:
        of each part its outer ring, clockwise as seen, then those of its holes, the other way.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    _, parts = cv2.connectedComponents(padded, connectivity=4)
    rings: dict[int, list[Ring]] = defaultdict(list)
    for ring in _rings(parts):
        x, y = ring[0]
        rings[int(parts[y, x])].append([(cx + left - 1, cy + top - 1) for cx, cy in ring])
    return [sorted(part, key=_signed_area, reverse=True) for part in rings.values()]


def _rings(parts: np.ndarray) -> list[Ring]:
    """Follow the edges of parts that have a border of 0, the part to the right of each step.

    Returns:
        the corners of each ring; the first step goes to the right, along the top of a pixel that
        has the number of the first corner.
    """
    padded = parts > 0
    above, here = padded[:-1], padded[1:]
    left = np.zeros_like(padded)
    left[:, 1:] = padded[:, :-1]
    leaving = np.zeros((4, *padded.shape), bool)  # whether a step to each side starts at a corner
    leaving[0, 1:] = here & ~above
    leaving[1] = left & ~padded
    leaving[2, 1:] = left[:-1] & ~left[1:]
    leaving[3, 1:] = above & ~left[:-1]
    found, unwalked = [], leaving[RIGHT].copy()
    for y, x in np.argwhere(unwalked).tolist():
        if unwalked[y, x]:
            found.append(_ring(leaving, unwalked, parts, x, y))
    return found


def _ring(leaving: np.ndarray, unwalked: np.ndarray, parts: np.ndarray, x: int, y: int) -> Ring:
    """Walk around once, from a corner to the right; its steps to that side are walked then."""
    corners, side = [(x, y)], RIGHT
    while True:
        if side == RIGHT:
            unwalked[y, x] = False
        x, y = x + STEPS[side][0], y + STEPS[side][1]
        turns = [turn for turn in (1, 0, 3) if leaving[(side + turn) % 4, y, x]]
        turn = turns[-1 if _meets_itself(parts, x, y) else 0]
        if turn:
            corners.append((x, y))
            side = (side + turn) % 4
        if (x, y) == corners[0] and side == RIGHT:
            return corners


def _meets_itself(parts: np.ndarray, x: int, y: int) -> bool:
    """Say whether two pixels of one part touch at this corner alone: rings part there."""
    (a, b), (c, d) = parts[y - 1 : y + 1, x - 1 : x + 1].tolist()
    return (a == d > 0 and b == c == 0) or (b == c > 0 and a == d == 0)


def _signed_area(ring: Ring) -> float:
    x, y = np.array(ring, np.int64).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2
