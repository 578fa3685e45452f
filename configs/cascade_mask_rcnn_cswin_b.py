"""Cascade Mask R-CNN, CSWin-B, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_cswin_b.py \
              --launcher pytorch --amp bf16 \
              --pretrained cswin_base_224
          (those ImageNet-1K weights: github.com/microsoft/CSWin-Transformer)
Authors   53.9 box AP, 46.4 mask AP (their repository, README; they published no code for
          detectors: the schedule is that of Swin, with which their tables compare, the share of
          dropped branches that of their segmentation)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.CSWin", arch="base", drop_path_rate=0.6),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
