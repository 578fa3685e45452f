"""Mask2Former, Swin-B, COCO panoptic, 50 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_swin_b_panoptic.py \
              --launcher pytorch --amp bf16 --pretrained swin_base_patch4_window12_384_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   56.4 PQ (their repository, facebookresearch/Mask2Former, MODEL_ZOO.md)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask2former_panoptic.py",
    "_base_/coco_panoptic.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_368k.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.Swin",
        arch="base",
        window_size=12,
        pretrain_img_size=384,
        drop_path_rate=0.3,
    ),
    panoptic_head=dict(in_channels=[128, 256, 512, 1024]),
)
