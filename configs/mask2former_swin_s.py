"""Mask2Former, Swin-S, COCO instances, 50 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_swin_s.py \
              --launcher pytorch --amp bf16 --pretrained swin_small_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   46.3 mask AP (their repository, facebookresearch/Mask2Former, MODEL_ZOO.md)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask2former.py",
    "_base_/coco_instance_lsj.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_368k.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="small", drop_path_rate=0.3),
    panoptic_head=dict(in_channels=[96, 192, 384, 768]),
)
