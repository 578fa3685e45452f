"""ATSS with Dynamic Head, Swin-T, COCO boxes, 24 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/atss_dyhead_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   49.8 box AP (their repository, DynamicHead; batch 32 at twice the rate, their 90 000
          iterations are 24.5 epochs with steps after 16.4 and 21.8)
Ours      not measured yet
"""

_base_ = [
    "_base_/atss_dyhead.py",
    "_base_/coco_detection.py",
    "_base_/adamw.py",
    "_base_/schedule_24e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=[
        dict(
            type="FPN",
            in_channels=[192, 384, 768],
            out_channels=256,
            add_extra_convs="on_output",
            num_outs=5,
        ),
        dict(
            type="DyHead", in_channels=256, out_channels=256, num_blocks=6, zero_init_offset=False
        ),
    ],
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
