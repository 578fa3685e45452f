"""Non-maximum suppression: of boxes that overlap, keep the one with the highest score."""

import torch
from torch import Tensor

from swin_dense.ops import reference, trust
from swin_dense.ops.checks import require_floats, require_one_device

torch.library.define(
    "swin_dense::nms",
    "(Tensor boxes, Tensor scores, float iou_threshold, int offset, Tensor? labels=None) -> Tensor",
)
torch.library.impl("swin_dense::nms", "CompositeExplicitAutograd", reference.nms)


@torch.library.register_fake("swin_dense::nms")
def _fake(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int, labels: Tensor | None = None
) -> Tensor:
    trust.look("nms", boxes)
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Drop every box that overlaps a kept one of higher score by more than the threshold.

    Boxes without an area, inverted boxes and boxes with a NaN overlap nothing: they are kept and
    drop no other. Computed in float32 (float64 for float64), under autocast too. There is no
    gradient. On CUDA the host waits once, for the number of boxes kept.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,); a NaN counts as lower than all numbers.
        iou_threshold: intersection over union, 0 to 1.
        offset: 1 where coordinates name pixels, so that a side is x2 - x1 + 1; else 0.

    Returns:
        (K,) int64, the boxes kept by decreasing score; of equal scores the first comes first.
    """
    check_boxes("nms", boxes, scores, offset)
    check_threshold("nms", iou_threshold)
    return _call(boxes, scores, iou_threshold, offset, None)


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """`nms` within each label: boxes of different labels never drop one another.

    One pass over all boxes as they are, instead of one over boxes moved apart: exact for any
    coordinates, negative ones included. On CUDA the host waits once, as for `nms`.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        labels: (N,) of integers, a class or a pyramid level.
        iou_threshold: intersection over union, 0 to 1.

    Returns:
        (K,) int64, the boxes kept by decreasing score; of equal scores the first comes first.
    """
    check_boxes("batched_nms", boxes, scores, 0)
    check_threshold("batched_nms", iou_threshold)
    if labels.shape != scores.shape or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            "batched_nms: there is one integer label per box; got labels of shape "
            f"{tuple(labels.shape)} and {labels.dtype} for boxes of shape {tuple(boxes.shape)}. "
            "Pass class indices, e.g. labels.long()."
        )
    return _call(boxes, scores, iou_threshold, 0, labels.to(boxes.device, torch.long))


def _call(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int, labels: Tensor | None
) -> Tensor:
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    boxes = boxes.detach().to(dtype)
    trust.look("nms", boxes)
    return torch.ops.swin_dense.nms(
        boxes, scores.detach().to(dtype), float(iou_threshold), offset, labels
    )


def check_boxes(op: str, boxes: Tensor, scores: Tensor, offset: int) -> None:
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"{op}: boxes are (N, 4) and scores (N,); got boxes {tuple(boxes.shape)} and scores "
            f"{tuple(scores.shape)}. Flatten the images into one list, or call once per image."
        )
    require_floats(op, boxes=boxes, scores=scores)
    require_one_device(op, boxes=boxes, scores=scores)
    if offset not in (0, 1):
        raise ValueError(
            f"{op}: offset is 0, or 1 where coordinates name pixels; got {offset}. "
            "Leave it out for continuous coordinates."
        )


def check_threshold(op: str, iou_threshold: float) -> None:
    if not 0 <= iou_threshold <= 1:
        raise ValueError(
            f"{op}: iou_threshold lies between 0 and 1; got {iou_threshold}. 0.5 to 0.7 is usual."
        )
