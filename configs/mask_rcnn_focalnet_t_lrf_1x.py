"""Mask R-CNN, FocalNet-T (kernels from 9 to 13), COCO instances, 12 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_focalnet_t_lrf_1x.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_tiny_lrf
          (those ImageNet-1K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   46.1 box AP, 41.5 mask AP (their repository, README)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_1x_late.py",
]

model = dict(
    backbone=dict(type="swin_dense.FocalNet", arch="tiny", drop_path_rate=0.1),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
