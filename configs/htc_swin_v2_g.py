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
        embed_dim=512,
        depths=(2, 2, 42, 4),
        num_heads=(16, 32, 64, 128),
        window_size=32,
        pretrained_window_sizes=(12, 12, 12, 6),
        extra_norm_every=6,
        with_cp=True,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
auto_scale_lr = dict(base_batch_size=96)
