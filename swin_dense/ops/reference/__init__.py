"""What each op means, in plain tensor code: correct on every device, fast on none.

These functions are the ops wherever nothing is compiled. They expect what the fronts have
checked. Sums are kept in float32 for float16 and bfloat16, else in the dtype of the input.
"""

from swin_dense.ops.reference.decomposed_attention import (
    decomposed_attention,
    decomposed_attention_backward,
)
from swin_dense.ops.reference.deform_columns import deform_columns, deform_columns_backward
from swin_dense.ops.reference.ms_deform_attn import ms_deform_attn, ms_deform_attn_backward
from swin_dense.ops.reference.neighborhood_attention import (
    neighborhood_attention,
    neighborhood_attention_backward,
)
from swin_dense.ops.reference.precision import FLOATING, sum_dtype
from swin_dense.ops.reference.roi_align import roi_align, roi_align_backward
from swin_dense.ops.reference.rows import (
    add_rows,
    gelu_rows,
    gelu_rows_backward,
    norm_rows,
    norm_rows_backward,
    scale_rows,
)
from swin_dense.ops.reference.suppression import nms, overlap, soft_nms
from swin_dense.ops.reference.window_attention import window_attention, window_attention_backward

__all__ = [
    "FLOATING",
    "add_rows",
    "decomposed_attention",
    "decomposed_attention_backward",
    "deform_columns",
    "deform_columns_backward",
    "gelu_rows",
    "gelu_rows_backward",
    "ms_deform_attn",
    "ms_deform_attn_backward",
    "neighborhood_attention",
    "neighborhood_attention_backward",
    "nms",
    "norm_rows",
    "norm_rows_backward",
    "overlap",
    "roi_align",
    "roi_align_backward",
    "scale_rows",
    "soft_nms",
    "sum_dtype",
    "window_attention",
    "window_attention_backward",
]
