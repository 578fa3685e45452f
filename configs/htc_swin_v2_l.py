"""HTC++, Swin V2-L with windows of 32, COCO instances, 36 epochs at 1536x1536, batch 64 (32 x 2).

Run       torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
              tools/train.py configs/htc_swin_v2_l.py --launcher pytorch --amp bf16 \
              --pretrained swinv2_large_patch4_window12_192_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   58.8 box AP, 51.1 mask AP in images of 1100 (arXiv 2111.09883, table 3; recipe: appendix
          A2.1); with windows of 48 there 58.9 and 51.2, at several scales 60.2 and 52.1
Ours      not measured yet
"""

_base_ = [
    "_base_/htc.py",
    "_base_/coco_htc_1536.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.SwinV2",
        arch="large",
        window_size=32,
        pretrained_window_sizes=(12, 12, 12, 6),
    ),
    neck=[
        dict(type="swin_dense.GlobalAttention", in_channels=[192, 384, 768, 1536]),
        dict(type="FPN", in_channels=[192, 384, 768, 1536], out_channels=256, num_outs=5),
    ],
)
optim_wrapper = dict(
    optimizer=dict(lr=4e-4),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
auto_scale_lr = dict(base_batch_size=64)
