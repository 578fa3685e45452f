"""Cascade Mask R-CNN, Swin V2-T with windows of 16, COCO instances, 36 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_swin_v2_t.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_tiny_patch4_window8_256.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   51.1 box AP, 51.8 with windows of 32 (arXiv 2111.09883, table 1; recipe: appendix A1.2)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.SwinV2", arch="tiny", window_size=16, pretrained_window_sizes=(8, 8, 8, 8)
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
