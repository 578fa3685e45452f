"""ATSS whose neck ends in Dynamic Head, so that its own head is one layer (arXiv 2106.08322).

Left open: what atss.py leaves open.
"""

_base_ = "atss.py"

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    neck=[
        dict(type="FPN", out_channels=256, add_extra_convs="on_output", num_outs=5),
        dict(
            type="DyHead", in_channels=256, out_channels=256, num_blocks=6, zero_init_offset=False
        ),
    ],
    bbox_head=dict(pred_kernel_size=1, stacked_convs=0, anchor_generator=dict(center_offset=0.5)),
)
