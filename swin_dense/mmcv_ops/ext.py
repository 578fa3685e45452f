"""Stand in for `mmcv._ext`, the compiled part of mmcv, where mmcv was installed without it.

mmcv asks for some 110 functions when it is imported. Those that the models of our configs call are
here, under mmcv's names and orders of arguments, on the ops of this package. Every other name is a
function that says what is missing when it is called; docs/ops.md lists them all. mmcv finds this
module through swin_dense/mmcv_stand_in.py.
"""

from collections.abc import Callable
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense import ops
from swin_dense.mmcv_ops.deform import (  # noqa: F401  (mmcv asks this module for them)
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from swin_dense.ops import reference

_POOL_MODES = ("max", "avg")
_SOFT_NMS_METHODS = ("naive", "linear", "gaussian")


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    return ops.nms(boxes, scores, iou_threshold, offset)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Write (K, 5) into the first rows of `dets`, return the K places in `boxes`.

    mmcv's own keeps the first box even if its score is below `min_score`; this one does not.
    """
    taken, index = ops.soft_nms(
        boxes, scores, iou_threshold, sigma, min_score, _SOFT_NMS_METHODS[method], offset
    )
    dets[: len(taken)] = taken
    return index


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Return groups of places in (N, 5): a kept box, then those it suppresses, by falling score.

    Unlike in `nms`, an overlap equal to the threshold suppresses.
    """
    boxes, scores = dets[:, :4].float(), dets[:, 4]
    left = scores.masked_fill(scores.isnan(), float("-inf")).sort(descending=True, stable=True)[1]
    groups = []
    while len(left):
        close = reference.overlap(boxes[left[:1]], boxes[left], 0)[0] >= iou_threshold
        close[0] = True
        groups.append(left[close].tolist())
        left = left[~close]
    return groups


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write `output`, and the places of the maxima in pool mode 0."""
    found = ops.roi_align_with_argmax(
        input,
        rois,
        (aligned_height, aligned_width),
        spatial_scale,
        sampling_ratio,
        _POOL_MODES[pool_mode],
        aligned,
    )
    for target, values in zip((output, argmax_y, argmax_x), found, strict=True):
        if values.numel():
            target.copy_(values)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to `grad_input`."""
    dtype = reference.sum_dtype(grad_output.dtype)
    grad_input += torch.ops.swin_dense.roi_align_backward(
        grad_output,
        rois.to(dtype),
        argmax_y.to(dtype),
        argmax_x.to(dtype),
        *grad_input.shape,
        float(spatial_scale),
        sampling_ratio,
        _POOL_MODES[pool_mode] == "max",
        aligned,
    )


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write (N, classes); the target `classes` is the background."""
    own, share, p = _focal_parts(input, target, weight, alpha)
    hit = -((1 - p) ** gamma) * F.logsigmoid(input.to(p.dtype))
    miss = -(p**gamma) * F.logsigmoid(-input.to(p.dtype))
    output.copy_(share * torch.where(own, hit, miss))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each loss by its logit."""
    own, share, p = _focal_parts(input, target, weight, alpha)
    logits = input.to(p.dtype)
    hit = (1 - p) ** gamma * (gamma * p * F.logsigmoid(logits) - (1 - p))
    miss = p**gamma * (p - gamma * (1 - p) * F.logsigmoid(-logits))
    grad_input.copy_(share * torch.where(own, hit, miss))


def _focal_parts(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return three (N, classes): own class or not, factor of the loss, probability."""
    classes = input.shape[1]
    own = target[:, None] == torch.arange(classes, device=input.device)
    p = input.to(reference.sum_dtype(input.dtype)).sigmoid()
    share = torch.where(own, alpha, 1 - alpha).to(p.dtype)
    if weight.numel():
        rows = weight.to(p.dtype)[target.clamp(max=classes - 1)]
        share = share * rows.where(target < classes, 1.0)[:, None]
    return own, share, p


def get_compiler_version() -> str:
    return "none, mmcv was not compiled"


def get_compiling_cuda_version() -> str:
    return "none, mmcv was not compiled"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise RuntimeError(
            f"The op {name!r} of mmcv was called. This mmcv was installed without its compiled "
            "ops, and swin_dense does not bring this one (docs/ops.md lists those it does). Use a "
            "model that does not need it, or compile mmcv for this torch: pip install "
            "--no-build-isolation --no-cache-dir --force-reinstall --no-deps onedl-mmcv "
            "(with FORCE_CUDA=1 in the environment to compile for CUDA where no GPU is visible)."
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
