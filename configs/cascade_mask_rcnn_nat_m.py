"""Cascade Mask R-CNN, NAT-M, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_nat_m.py \
              --launcher pytorch --amp bf16 \
              --pretrained nat_mini
          (those ImageNet-1K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   50.3 box AP, 43.6 mask AP (their repository, detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.NAT", arch="mini"),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
