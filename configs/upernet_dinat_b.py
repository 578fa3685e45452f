"""UPerNet, DiNAT-B, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_dinat_b.py \
              --launcher pytorch --amp bf16 \
              --pretrained dinat_base_in1k_224
          (those ImageNet-1K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   49.6 mIoU at one scale, 50.4 at several (their repository, segmentation)
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
    backbone=dict(
        type="swin_dense.DiNAT",
        arch="base",
        dilations=((1, 16), (1, 4, 1, 8), (1, 2, 1, 3, 1, 4), (1, 2)),
        drop_path_rate=0.5,
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
