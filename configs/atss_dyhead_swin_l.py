"""ATSS with Dynamic Head, Swin-L with windows of 12, COCO boxes, 24 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/atss_dyhead_swin_l.py \
              --launcher pytorch --amp bf16 --pretrained swin_large_patch4_window12_384_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   56.2 box AP (mmdet's log of this recipe)
Ours      not measured yet
"""

_base_ = [
    "_base_/atss_dyhead.py",
    "_base_/coco_detection_large.py",
    "_base_/adamw.py",
    "_base_/schedule_24e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.Swin",
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
        pretrain_img_size=384,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
