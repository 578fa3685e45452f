"""Cascade Mask R-CNN, Swin V2-S with windows of 16, COCO instances, 36 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_swin_v2_s.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_small_patch4_window8_256.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   none; the recipe is that of their V2-T (arXiv 2111.09883, appendix A1.2)
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
        type="swin_dense.SwinV2", arch="small", window_size=16, pretrained_window_sizes=(8, 8, 8, 8)
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
