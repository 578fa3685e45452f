"""Sparse R-CNN, FocalNet-T, COCO boxes, 36 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/sparse_rcnn_focalnet_t_lrf.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_tiny_lrf
          (those ImageNet-1K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   49.9 box AP (their repository, README)
Ours      not measured yet

The first kernels are 11x11, 9x9, 9x9 and 7x7 in the four stages.
"""

_base_ = [
    "_base_/sparse_rcnn.py",
    "_base_/coco_detection_crop.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.FocalNet", arch="tiny", focal_windows=(11, 9, 9, 7)),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
