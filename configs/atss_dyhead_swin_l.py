"""ATSS with Dynamic Head, Swin-L with windows of 12, COCO boxes, 24 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/atss_dyhead_swin_l.py \
              --launcher pytorch --amp bf16 --pretrained swin_large_patch4_window12_384_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   56.2 box AP (mmdet's log of this recipe)
Ours      not measured yet
"""

_base_ = [
    "_base_/atss_dyhead.py",
    "_base_/coco_detection_large.py",
    "_base_/adamw.py",
    "_base_/schedule_24e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="large", window_size=12, pretrain_img_size=384),
    neck=[
        dict(
            type="FPN",
            in_channels=[384, 768, 1536],
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
