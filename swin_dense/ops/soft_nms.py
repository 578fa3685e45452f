"""Soft non-maximum suppression: a box that overlaps a better one loses score, not its life."""

import torch
from torch import Tensor

from swin_dense.ops import reference
from swin_dense.ops.nms import check_boxes, check_threshold

_METHODS = {"naive": 0, "linear": 1, "gaussian": 2}

torch.library.define(
    "swin_dense::soft_nms",
    "(Tensor boxes, Tensor scores, float iou_threshold, float sigma, float min_score, int method, "
    "int offset) -> (Tensor, Tensor)",
)
torch.library.impl("swin_dense::soft_nms", "CompositeExplicitAutograd", reference.soft_nms)


@torch.library.register_fake("swin_dense::soft_nms")
def _fake(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> tuple[Tensor, Tensor]:
    size = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(size, 5), boxes.new_empty(size, dtype=torch.long)


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = "linear",
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Take boxes by score; each one taken lowers the scores of those it overlaps.

    With u the intersection over union, a score is multiplied by 0 (naive) or 1 - u (linear) where
    u reaches the threshold, or by exp(-u * u / sigma) everywhere (gaussian). Boxes without an
    area, inverted boxes and boxes with a NaN leave all scores alone. Computed in float32 (float64
    for float64), under autocast too, and always on the CPU: each round needs the one before, which
    is no work for a GPU. There is no gradient.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,); not below 0, or lowering would raise them.
        iou_threshold: where naive and linear begin, 0 to 1.
        sigma: width of the gaussian, above 0.
        min_score: boxes of a lower score, from the start or after lowering, are dropped. So are
            those with a NaN.
        method: "naive", "linear" or "gaussian".
        offset: 1 where coordinates name pixels, so that a side is x2 - x1 + 1; else 0.

    Returns:
        (K, 5), the boxes taken with their lowered scores by decreasing score, dtype of `boxes`;
        (K,) int64, their places in `boxes`. Of equal scores the first is taken first.
    """
    check_boxes("soft_nms", boxes, scores, offset)
    check_threshold("soft_nms", iou_threshold)
    if method not in _METHODS:
        raise ValueError(
            f"soft_nms: method is one of {', '.join(map(repr, _METHODS))}; got {method!r}. "
            "'linear' is usual."
        )
    if not sigma > 0:
        raise ValueError(f"soft_nms: sigma is above 0; got {sigma}. 0.5 is usual.")
    dtype = reference.sum_dtype(torch.promote_types(boxes.dtype, scores.dtype))
    dets, index = torch.ops.swin_dense.soft_nms(
        boxes.detach().to("cpu", dtype),
        scores.detach().to("cpu", dtype),
        float(iou_threshold),
        float(sigma),
        float(min_score),
        _METHODS[method],
        offset,
    )
    return dets.to(boxes), index.to(boxes.device)
