"""Tensor functions of dense prediction. Nothing here knows what a model or an image is.

Each op has a front, which checks and calls (this folder; checks.py is what all of them ask), its
meaning in plain torch (reference/), and kernels that replace the meaning on one device (csrc/, see
extension.py).
"""

import importlib

from swin_dense.ops import branches, extension
from swin_dense.ops.decomposed_attention import decomposed_attention
from swin_dense.ops.deform_conv2d import deform_conv2d
from swin_dense.ops.ms_deform_attn import ms_deform_attn
from swin_dense.ops.neighborhood_attention import neighborhood_attention
from swin_dense.ops.nms import batched_nms, nms
from swin_dense.ops.roi_align import roi_align, roi_align_with_argmax
from swin_dense.ops.soft_nms import soft_nms
from swin_dense.ops.window_attention import window_attention

importlib.import_module("swin_dense.ops.flops")  # registers what the ops above cost

__all__ = [
    "batched_nms",
    "branches",
    "decomposed_attention",
    "deform_conv2d",
    "extension",
    "ms_deform_attn",
    "neighborhood_attention",
    "nms",
    "roi_align",
    "roi_align_with_argmax",
    "soft_nms",
    "window_attention",
]
