"""Mask2Former, Swin-L, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask2former_swin_l_ade20k.py \
              --launcher pytorch --amp bf16 --pretrained swin_large_patch4_window12_384_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   56.1 mIoU at one scale, 57.3 at several (their repository,
          facebookresearch/Mask2Former, MODEL_ZOO.md)
Ours      not measured yet
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
        type="swin_dense.Swin",
        arch="large",
        window_size=12,
        pretrain_img_size=384,
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
)
