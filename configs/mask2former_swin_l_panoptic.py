"""Mask2Former, Swin-L, COCO panoptic, 100 epochs, batch 16 (16 x 1).

Run       torchrun --nproc-per-node 16 tools/train.py configs/mask2former_swin_l_panoptic.py \
              --launcher pytorch --amp bf16 --pretrained swin_large_patch4_window12_384_22k.pth \
              --cfg-options train_dataloader.batch_size=1
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   57.8 PQ (their repository, facebookresearch/Mask2Former, MODEL_ZOO.md)
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
        arch="large",
        window_size=12,
        pretrain_img_size=384,
        drop_path_rate=0.3,
    ),
    panoptic_head=dict(in_channels=[192, 384, 768, 1536], num_queries=200),
)
train_cfg = dict(max_iters=737500)
param_scheduler = dict(end=737500, milestones=[655556, 710184])
