"""Mask R-CNN, FocalNet-T (kernels from 9 to 13), COCO instances, 36 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_focalnet_t_lrf.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_tiny_lrf
          (those ImageNet-1K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   48.0 box AP, 42.9 mask AP (their repository, README)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.FocalNet", arch="tiny"),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
