"""Mask R-CNN, CSWin-S, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_cswin_s.py \
              --launcher pytorch --amp bf16 \
              --pretrained cswin_small_224
          (those ImageNet-1K weights: github.com/microsoft/CSWin-Transformer)
Authors   50.0 box AP, 44.5 mask AP (their repository, README; they published no code for
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
    backbone=dict(type="swin_dense.CSWin", arch="small", drop_path_rate=0.4),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
