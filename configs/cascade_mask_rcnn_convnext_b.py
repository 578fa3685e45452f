"""Cascade Mask R-CNN, ConvNeXt-B, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_convnext_b.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_base_1k_224.pth
          (those ImageNet-1K weights: github.com/facebookresearch/ConvNeXt)
Authors   52.7 box AP, 45.6 mask AP (their repository, object_detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.ConvNeXt", arch="base", drop_path_rate=0.7),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(layer_decay=0.8))
