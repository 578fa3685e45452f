"""UPerNet, FocalNet-S (kernels 9-11), ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_focalnet_s_srf.py \
              --launcher pytorch --amp bf16 --pretrained focalnet_small_srf
          (those ImageNet-1K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   49.3 mIoU at one scale, 50.1 at several (their repository, README)
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k.py",
    "_base_/adamw_ade20k.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="swin_dense.FocalNet", arch="small", focal_levels=2),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
