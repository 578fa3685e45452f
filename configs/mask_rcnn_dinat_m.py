"""Mask R-CNN, DiNAT-M, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_dinat_m.py \
              --launcher pytorch --amp bf16 \
              --pretrained dinat_mini_in1k_224
          (those ImageNet-1K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   47.2 box AP, 42.5 mask AP (their repository, detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.DiNAT",
        arch="mini",
        dilations=((1, 28), (1, 7, 1, 14), (1, 3, 1, 5, 1, 7), (1, 3)),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
