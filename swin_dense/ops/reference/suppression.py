import torch
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype

_BLOCK = 256  # boxes that nms settles at a time
_BEATEN = 8192  # boxes that nms holds against these at a time


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int, labels: Tensor | None = None
) -> Tensor:
    boxes = boxes.to(sum_dtype(boxes.dtype))
    ranked = scores.masked_fill(scores.isnan(), float("-inf"))
    order = ranked.sort(descending=True, stable=True).indices
    # Not settled yet: label after label, best first.
    left = order if labels is None else order[labels[order].sort(stable=True).indices]
    kept = [left[:0]]
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        beats = (overlap(boxes[block], boxes[block], offset) > iou_threshold).triu(1)
        if labels is not None:
            beats &= labels[block, None] == labels[block]
        # A box stays if no box that stays beats it; right after at most one round per box, and
        # in practice after a few.
        stays = torch.ones_like(block, dtype=torch.bool)
        while True:
            now = ~(beats & stays[:, None]).any(0)
            if torch.equal(now, stays):
                break
            stays = now
        rivals = left
        if labels is not None:  # beyond the block, only its last label goes on
            last = labels[block[-1]]
            rivals = left[labels[left] == last]
        left = left[len(rivals) :]
        block = block[stays]
        kept.append(block)
        if labels is not None:
            block = block[labels[block] == last]
        beaten = [
            (overlap(boxes[block], boxes[some], offset) > iou_threshold).any(0)
            for some in rivals.split(_BEATEN)
        ]
        left = torch.cat([rivals[~torch.cat(beaten)], left])
    if labels is None:
        return torch.cat(kept)
    stays = torch.zeros_like(order, dtype=torch.bool)
    stays[torch.cat(kept)] = True
    return order[stays[order]]


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    index = (scores >= min_score).nonzero()[:, 0]  # NaN goes too
    scores = scores[index]
    dets, kept = [boxes.new_empty(0, 5)], [index[:0]]
    while len(index):
        best = scores.argmax()
        box = boxes[index[best]]
        dets.append(torch.cat([box, scores[best, None]])[None])
        kept.append(index[best, None])
        shared = overlap(box[None], boxes[index], offset)[0]
        if method == 2:
            weight = torch.exp(-(shared * shared) / sigma)
        else:
            weight = torch.where(shared >= iou_threshold, (1 - shared) * method, 1.0)
        # No overlap can be told where a box is none: leave those scores alone.
        scores = scores * torch.where(shared.isnan(), 1.0, weight)
        stays = scores >= min_score
        stays[best] = False
        index, scores = index[stays], scores[stays]
    return torch.cat(dets), torch.cat(kept)


def overlap(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """(M, 4), (N, 4) -> (M, N): intersection over union; NaN where a box has no area."""
    top_left = torch.maximum(a[:, None, :2], b[:, :2])
    sides = (torch.minimum(a[:, None, 2:], b[:, 2:]) - top_left + offset).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    areas = [(x[:, 2] - x[:, 0] + offset) * (x[:, 3] - x[:, 1] + offset) for x in (a, b)]
    return inter / (areas[0][:, None] + areas[1] - inter)
