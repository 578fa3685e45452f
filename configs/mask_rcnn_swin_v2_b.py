"""Mask R-CNN, Swin V2-B with windows of 8, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_swin_v2_b.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_base_patch4_window8_256.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   none: they published no such model; the recipe is that of Swin V1
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.SwinV2", arch="base", drop_path_rate=0.3),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
