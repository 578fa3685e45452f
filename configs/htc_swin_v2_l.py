"""HTC++, Swin V2-L with windows of 12, COCO instances, 72 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/htc_swin_v2_l.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_large_patch4_window12_192_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   none of this recipe, which is that of Swin V1; with windows of 32 and images of 1536x1536
          58.8 box AP, 51.1 mask AP (arXiv 2111.09883, table 3)
Ours      not measured yet
"""

_base_ = [
    "_base_/htc.py",
    "_base_/coco_htc.py",
    "_base_/adamw.py",
    "_base_/schedule_72e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.SwinV2",
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
        pretrained_window_sizes=(0, 0, 0, 6),
    ),
)
