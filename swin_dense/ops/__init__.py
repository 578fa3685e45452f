"""Tensor functions of dense prediction. Nothing here knows what a model or an image is.

Each op has a front, which checks and calls (this folder), its meaning in plain torch
(reference/), and kernels that replace the meaning on one device (csrc/, see extension.py).
"""

from swin_dense.ops import branches, extension
from swin_dense.ops.nms import batched_nms, nms
from swin_dense.ops.roi_align import roi_align, roi_align_with_argmax
from swin_dense.ops.soft_nms import soft_nms
from swin_dense.ops.window_attention import window_attention

__all__ = [
    "batched_nms",
    "branches",
    "extension",
    "nms",
    "roi_align",
    "roi_align_with_argmax",
    "soft_nms",
    "window_attention",
]
