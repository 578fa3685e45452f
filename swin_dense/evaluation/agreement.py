"""How well label maps agree: pixels counted by true and found class, and rates from the counts.

K: classes. Rates are as mmseg computes them, in float64 from whole numbers.
"""

from __future__ import annotations

import numpy as np


def confusion(true: np.ndarray, found: np.ndarray, count: int, ignore: int = 255) -> np.ndarray:
    """Count pixels: int64 (K, K), rows by the true class, columns by the found one.

    Args:
        true, found: (h, w) of class indices; pixels of the true index `ignore` are left out.
        count: K.
    """
    judged = true != ignore
    codes = true[judged].astype(np.int64) * count + found[judged].astype(np.int64)
    return np.bincount(codes, minlength=count * count).reshape(count, count)


def rates(table: np.ndarray, beta: float = 1.0) -> dict[str, np.ndarray]:
    """Return IoU, Acc, Dice, Fscore, Precision and Recall of each class, (K,) from 0 to 1.

    A rate is nan where it would divide by 0: of a class that neither side shows.

    Args:
        table: (K, K), see `confusion`.
        beta: weight of the recall in Fscore; 1 makes it Dice.
    """
    both = table.diagonal().astype(np.float64)
    true, found = table.sum(1).astype(np.float64), table.sum(0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = both / found, both / true
        weight = beta**2
        return {
            "IoU": both / (true + found - both),
            "Acc": recall,
            "Dice": 2 * both / (true + found),
            "Precision": precision,
            "Recall": recall,
            "Fscore": (1 + weight) * precision * recall / (weight * precision + recall),
        }
