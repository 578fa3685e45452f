"""UPerNet, CSWin-S, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_cswin_s.py \
              --launcher pytorch --amp bf16 \
              --pretrained cswin_small_224
          (those ImageNet-1K weights: github.com/microsoft/CSWin-Transformer)
Authors   50.4 mIoU at one scale, 51.5 at several (their repository, segmentation)
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
    backbone=dict(type="swin_dense.CSWin", arch="small", drop_path_rate=0.4),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
