"""Mask R-CNN, TinyViT-11M, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_tiny_vit_11m.py \
              --launcher pytorch --amp bf16
          (those ImageNet-1K weights, from timm: Apache-2.0)
Authors   no detection (arXiv 2207.10666); the recipe is Swin's
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.Timm",
        model="tiny_vit_11m_224.dist_in22k_ft_in1k",
        pretrained=True,
        output_norm=True,
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[64, 128, 256, 448]),
)
