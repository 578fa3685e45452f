"""Mask R-CNN, NAT-S, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_nat_s.py \
              --launcher pytorch --amp bf16 \
              --pretrained nat_small
          (those ImageNet-1K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   48.4 box AP, 43.2 mask AP (their repository, detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.NAT", arch="small", drop_path_rate=0.35),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
