"""Mask2Former, DiNAT-L, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_dinat_l_ade20k.py \
              --launcher pytorch \
              --pretrained dinat_large_in22k_224
          (those ImageNet-22K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   58.1 mIoU at several scales (their repository, mask2former)
Ours      not measured yet

Windows of 11; the bias tables of those weights, made for windows of 7, are resized.
"""

_base_ = [
    "_base_/mask2former_semantic.py",
    "_base_/ade20k_640.py",
    "_base_/adamw_mask2former.py",
    "_base_/schedule_160k_poly.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
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
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
