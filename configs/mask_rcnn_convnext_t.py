"""Mask R-CNN, ConvNeXt-T, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_convnext_t.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth
          (those ImageNet-1K weights: github.com/facebookresearch/ConvNeXt)
Authors   46.2 box AP, 41.7 mask AP (their repository, object_detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.ConvNeXt", arch="tiny"),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.95))
