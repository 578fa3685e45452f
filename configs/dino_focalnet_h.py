"""DINO of five scales, FocalNet-H of four levels, COCO boxes, 12 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/dino_focalnet_h.py \
              --launcher pytorch \
              --pretrained hf://timm/focalnet_huge_fl4.ms_in22k/model.safetensors
          (those ImageNet-22K weights: timm's copy, the authors' address is gone)
Authors   64.2 box AP after a training on Objects365 (microsoft/FocalNet, README)
Ours      not measured yet

They published no config; what stands here is that of FocalNet-L.
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
        arch="huge",
        stem_padding=2,
        out_indices=(0, 1, 2, 3),
        with_cp=True,
    ),
    neck=dict(in_channels=[352, 704, 1408, 2816], num_outs=5),
    encoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=5))),
    decoder=dict(layer_cfg=dict(cross_attn_cfg=dict(num_levels=5))),
    dn_cfg=dict(box_noise_scale=0.4),
)
