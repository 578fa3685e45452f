"""Deformable DETR, Swin-T, COCO boxes, 50 epochs, batch 32 (16 x 2).

Run       torchrun --nproc-per-node 16 tools/train.py configs/deformable_detr_swin_t.py \
              --launcher pytorch --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   none with Swin; with ResNet-50 43.8 box AP (paper, table 1), 44.3 (mmdet's log)
Ours      not measured yet
"""

_base_ = [
    "_base_/deformable_detr.py",
    "_base_/coco_detr.py",
    "_base_/adamw_detr.py",
    "_base_/schedule_50e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(
        custom_keys=dict(sampling_offsets=dict(lr_mult=0.1), reference_points=dict(lr_mult=0.1))
    ),
)
auto_scale_lr = dict(base_batch_size=32)
