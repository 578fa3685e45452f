"""Mask2Former, DiNAT-L, COCO panoptic, 100 epochs, batch 16 (16 x 1).

Run       torchrun --nproc-per-node 16 tools/train.py configs/mask2former_dinat_l_panoptic.py \
              --launcher pytorch \
              --pretrained dinat_large_in22k_224 \
              --cfg-options train_dataloader.batch_size=1
          (those ImageNet-22K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   58.5 PQ (their repository, mask2former)
Ours      not measured yet

Windows of 11; the bias tables of those weights, made for windows of 7, are resized.
"""

_base_ = [
    "_base_/mask2former_panoptic.py",
    "_base_/coco_panoptic.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_368k.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.DiNAT",
        arch="large",
        kernel_size=11,
        dilations=(
            (1, 14),
            (1, 4, 1, 7),
            (1, 2, 1, 3, 1, 2, 1, 3, 1, 2, 1, 3, 1, 2, 1, 3, 1, 3),
            (1,),
        ),
        drop_path_rate=0.3,
    ),
    panoptic_head=dict(in_channels=[192, 384, 768, 1536], num_queries=200),
)
train_cfg = dict(max_iters=737500)
param_scheduler = dict(end=737500, milestones=[655556, 710184])
