"""Mask R-CNN, Swin-S, COCO instances, 12 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_swin_s_1x.py \
              --launcher pytorch --amp bf16 --pretrained swin_small_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   none: they published no such model; 46.5 box AP, 42.1 mask AP in arXiv 2203.11926,
          table 6; the drop path rate is that of their 36 epochs
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_1x.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="small"),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
