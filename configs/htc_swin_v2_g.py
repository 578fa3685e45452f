"""HTC++, Swin V2-G with windows of 32, COCO instances, 36 epochs at 1536x1536, batch 96 (48 x 2).

Run       torchrun --nnodes 6 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
              tools/train.py configs/htc_swin_v2_g.py --launcher pytorch --amp bf16
          (from random weights: theirs, of 70 million images and of Objects365, are not published)
Authors   61.7 box AP, 53.3 mask AP in images of 1100 (arXiv 2111.09883, table 3; recipe: appendix
          A2.2, whose 45 000 steps are 36.8 epochs); with windows of 48 there 61.9 and 53.4, at
          several scales 62.5 and 53.7
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
        arch="giant",
        window_size=32,
        pretrained_window_sizes=(12, 12, 12, 6),
        with_cp=True,
    ),
    neck=[
        dict(type="swin_dense.GlobalAttention", in_channels=[512, 1024, 2048, 4096]),
        dict(type="FPN", in_channels=[512, 1024, 2048, 4096], out_channels=256, num_outs=5),
    ],
)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
auto_scale_lr = dict(base_batch_size=96)
