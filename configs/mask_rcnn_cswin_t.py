"""Mask R-CNN, CSWin-T, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_cswin_t.py \
              --launcher pytorch --amp bf16 \
              --pretrained cswin_tiny_224
          (those ImageNet-1K weights: github.com/microsoft/CSWin-Transformer)
Authors   49.0 box AP, 43.6 mask AP (their repository, README; they published no code for
          detectors: the schedule is that of Swin, with which their tables compare, the share of
          dropped branches that of their segmentation)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.CSWin", arch="tiny"),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
