"""Mask R-CNN, ViT-B (ViTDet), COCO instances, 100 epochs of jitter, batch 64 (32 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_vitdet_b.py \
              --launcher pytorch --amp bf16 --pretrained mae_pretrain_vit_base
          (those weights of MAE: github.com/facebookresearch/mae, not for commercial use)
Authors   51.6 box AP, 45.9 mask AP (detectron2, projects/ViTDet)
Ours      not measured yet
"""

_base_ = [
    "_base_/vitdet.py",
    "_base_/coco_vitdet.py",
    "_base_/adamw_vitdet.py",
    "_base_/schedule_184k.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.ViT",
        arch="base",
        window_size=14,
        relative_positions="decomposed",
        img_size=1024,
    ),
    neck=dict(in_channels=[768]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))
