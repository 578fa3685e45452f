"""UPerNet, Swin-S, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_swin_s.py \
              --launcher pytorch --amp bf16 --pretrained swin_small_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   47.6 mIoU at one scale, 49.5 at several (their repository,
          Swin-Transformer-Semantic-Segmentation)
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
    backbone=dict(type="swin_dense.Swin", arch="small", drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
