"""Mask2Former, FocalNet-L, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_focalnet_l_ade20k.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_large_lrf_384_fl4
          (those ImageNet-22K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   58.5 mIoU (arXiv 2203.11926, abstract)
Ours      not measured yet

They published the number alone; what stands here is the recipe of Swin-L, and the padding of the
stem that the ImageNet weights were trained with.
"""

_base_ = [
    "_base_/mask2former_semantic.py",
    "_base_/ade20k_640.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_160k_poly.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(type="swin_dense.FocalNet", arch="large", stem_padding=2),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
