"""ATSS whose neck ends in Dynamic Head, so that its own head is one layer (arXiv 2106.08322).

Left open: what atss.py leaves open, and model.neck: an FPN, then DyHead.
"""

_base_ = "atss.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    bbox_head=dict(pred_kernel_size=1, stacked_convs=0, anchor_generator=dict(center_offset=0.5)),
)
