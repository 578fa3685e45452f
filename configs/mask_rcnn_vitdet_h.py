"""Mask R-CNN, ViT-H (ViTDet), COCO instances, 75 epochs of jitter, batch 64 (32 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_vitdet_h.py \
              --launcher pytorch --amp bf16 --pretrained mae_pretrain_vit_huge
          (those weights of MAE: github.com/facebookresearch/mae, not for commercial use)
Authors   56.7 box AP, 50.2 mask AP (detectron2, projects/ViTDet)
Ours      not measured yet

Patches have 16 pixels; the kernel of MAE's, which has 14, is resized where it is loaded.
"""

_base_ = [
    "_base_/vitdet.py",
    "_base_/coco_vitdet.py",
    "_base_/adamw_vitdet.py",
    "_base_/schedule_138k.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.ViT",
        arch="huge",
        patch_size=16,
        drop_path_rate=0.5,
        window_size=14,
        relative_positions="decomposed",
        img_size=1024,
    ),
    neck=dict(in_channels=[1280]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.9))
