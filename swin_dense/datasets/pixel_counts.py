"""Which whole numbers an array of pixels has, and how often each: without sorting all of them."""

from __future__ import annotations

import numpy as np

BLOCK = 2**22  # pixels that are counted together


def counted(raw: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the values of whole numbers in rising order, and how often each is there."""
    if raw.dtype == np.uint8 or not raw.size:
        return _counted(raw, 256)
    least, most = int(raw.min()), int(raw.max())
    if least >= 0 and most < 2**16:  # as a rule: sorting takes longer by much
        return _counted(raw, most + 1)
    values, counts = np.unique(raw, return_counts=True)
    return values.tolist(), counts.tolist()


def _counted(raw: np.ndarray, end: int) -> tuple[list[int], list[int]]:
    flat = raw.reshape(-1)
    counts = np.zeros(end, np.int64)
    for start in range(0, len(flat), BLOCK):
        counts += np.bincount(flat[start : start + BLOCK], minlength=end)
    values = np.flatnonzero(counts)
    return values.tolist(), counts[values].tolist()
