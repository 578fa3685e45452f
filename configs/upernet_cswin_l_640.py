"""UPerNet, CSWin-L, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_cswin_l_640.py \
              --launcher pytorch --amp bf16 \
              --pretrained cswin_large_22k_224
          (those ImageNet-22K weights: github.com/microsoft/CSWin-Transformer)
Authors   53.4 mIoU at one scale, 55.7 at several (their repository, README; of this model they
          published the numbers alone: its stripes are those that fit their 2745 GFLOPs, the rest is
          that of CSWin-B at 512x512)
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw_ade20k.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(type="swin_dense.CSWin", arch="large", split_size=(1, 2, 12), drop_path_rate=0.6),
    decode_head=dict(in_channels=[144, 288, 576, 1152]),
    auxiliary_head=dict(in_channels=576),
)
