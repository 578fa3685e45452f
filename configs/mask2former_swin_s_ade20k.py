"""Mask2Former, Swin-S, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_swin_s_ade20k.py \
              --launcher pytorch --amp bf16 --pretrained swin_small_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   51.3 mIoU at one scale, 52.4 at several (their repository,
          facebookresearch/Mask2Former, MODEL_ZOO.md)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask2former_semantic.py",
    "_base_/ade20k.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_160k_poly.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="swin_dense.Swin", arch="small", drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
)
