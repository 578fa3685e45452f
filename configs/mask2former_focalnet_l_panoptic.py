"""Mask2Former, FocalNet-L, COCO panoptic, 100 epochs, batch 16 (16 x 1).

Run       torchrun --nproc-per-node 16 tools/train.py configs/mask2former_focalnet_l_panoptic.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_large_lrf_384_fl4 \
              --cfg-options train_dataloader.batch_size=1
          (those ImageNet-22K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   57.9 PQ (arXiv 2203.11926, abstract)
Ours      not measured yet

They published the number alone; what stands here is the recipe of Swin-L, and the padding of the
stem that the ImageNet weights were trained with.
"""

_base_ = [
    "_base_/mask2former_panoptic.py",
    "_base_/coco_panoptic.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_368k.py",
]

model = dict(
    backbone=dict(type="swin_dense.FocalNet", arch="large", stem_padding=2),
    panoptic_head=dict(in_channels=[192, 384, 768, 1536], num_queries=200),
)
train_cfg = dict(max_iters=737500)
param_scheduler = dict(end=737500, milestones=[655556, 710184])
