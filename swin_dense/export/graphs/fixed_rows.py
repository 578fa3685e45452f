"""A fixed number of rows: the best of many, without those that a better one covers.

A row that is none has the score NOTHING, and is left where it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense import ops

NOTHING = -1.0  # the score of a row that is none


@torch.library.custom_op("swin_dense::kept", mutates_args=())
def kept(
    boxes: Tensor, scores: Tensor, labels: Tensor, groups: int, iou_threshold: float
) -> Tensor:
    """Say which boxes no kept box of a higher score and the same label covers.

    An op of its own, since exporters have a word for it: `formats.py` writes it as ONNX's
    NonMaxSuppression.

    Args:
        boxes: (B, N, 4) as x1, y1, x2, y2.
        scores: (B, N); those below 0 are not kept and cover nothing.
        labels: (B, N) int64, from 0.
        groups: number of labels.
        iou_threshold: intersection over union above which a box is covered.

    Returns:
        (B, N) float32, 1 for those that are kept, else 0.
    """
    found = torch.zeros(scores.shape, dtype=torch.float32, device=scores.device)
    for image in range(len(boxes)):
        rows = (scores[image] >= 0).nonzero()[:, 0]
        one, sure, label = (values[image][rows] for values in (boxes, scores, labels))
        found[image, rows[ops.batched_nms(one, sure, label, iou_threshold)]] = 1
    return found


@kept.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, groups: int, iou_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.float32)


def best(scores: Tensor, count: int, none: float = NOTHING) -> tuple[Tensor, Tensor]:
    """Return the `count` highest scores (B, count) of (B, N) and where they stand.

    Where N is smaller, rows of the score `none` follow; they name the last place.
    """
    found, places = F.pad(scores, (0, count), value=none).topk(count, dim=1)
    return found, places.clamp(max=scores.shape[1] - 1)


def at(values: Tensor, places: Tensor) -> Tensor:
    """Return rows (B, K, ...) of (B, N, ...) at places (B, K)."""
    if values.dim() == 2:
        return values.gather(1, places)
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def uncovered(
    boxes: Tensor, scores: Tensor, labels: Tensor, groups: int, iou_threshold: float, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (B, count, 4), scores and labels (B, count) after suppression, the best first.

    Args:
        boxes: (B, N, 4).
        scores: (B, N), NOTHING for rows that are none.
        labels: (B, N) int64.
        groups: number of labels; boxes of different ones do not cover each other.
        iou_threshold: intersection over union above which a box is covered.
        count: rows that are returned; others have the score NOTHING.
    """
    keep = kept(boxes, scores, labels, groups, iou_threshold) > 0
    scores = torch.where(keep, scores, torch.full_like(scores, NOTHING))
    scores, places = best(scores, count)
    return at(boxes, places), scores, at(labels, places)
