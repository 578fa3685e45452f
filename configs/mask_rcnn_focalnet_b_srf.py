"""Mask R-CNN, FocalNet-B (kernels from 9 to 11), COCO instances, 36 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_focalnet_b_srf.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_base_srf
          (those ImageNet-1K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   49.6 box AP, 44.1 mask AP (their repository, README)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.FocalNet", arch="base", focal_levels=2, drop_path_rate=0.5),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
