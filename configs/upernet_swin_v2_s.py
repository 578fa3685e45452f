"""UPerNet, Swin V2-S with windows of 16, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_swin_v2_s.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_small_patch4_window8_256.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   none; the recipe is that of their V2-T (arXiv 2111.09883, appendix A1.2)
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k.py",
    "_base_/adamw_ade20k_v2.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type="swin_dense.SwinV2",
        arch="small",
        window_size=16,
        pretrained_window_sizes=(8, 8, 8, 8),
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
