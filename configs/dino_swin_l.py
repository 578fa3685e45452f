"""DINO of five scales, Swin-L with windows of 12, COCO boxes, 12 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/dino_swin_l.py \
              --launcher pytorch --pretrained swin_large_patch4_window12_384_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   57.2 box AP (mmdet's log of this recipe)
Ours      not measured yet
"""

_base_ = [
    "_base_/dino.py",
    "_base_/coco_detr.py",
    "_base_/adamw_detr.py",
    "_base_/schedule_12e.py",
]

model = dict(
    num_feature_levels=5,
    backbone=dict(
        type="swin_dense.Swin",
        arch="large",
        window_size=12,
        pretrain_img_size=384,
        out_indices=(0, 1, 2, 3),
        with_cp=True,
    ),
    neck=dict(in_channels=[192, 384, 768, 1536], num_outs=5),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=5))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=5))),
)
