"""DINO of five scales, FocalNet-L of four levels, COCO boxes, 12 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/dino_focalnet_l.py \
              --launcher pytorch --pretrained focalnet_large_lrf_384_fl4
          (those ImageNet-22K weights: github.com/microsoft/FocalNet, release v1.0.0)
Authors   63.5 box AP after a training on Objects365 (FocalNet/FocalNet-DINO, README)
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
        type="swin_dense.FocalNet",
        arch="large",
        stem_padding=2,
        out_indices=(0, 1, 2, 3),
        with_cp=True,
    ),
    neck=dict(in_channels=[192, 384, 768, 1536], num_outs=5),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=5))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=5))),
    dn_cfg=dict(box_noise_scale=0.4),
)
