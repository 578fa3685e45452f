"""Cascade Mask R-CNN, ConvNeXt-XL, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_convnext_xl.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_xlarge_22k_224.pth
          (those ImageNet-22K weights: github.com/facebookresearch/ConvNeXt)
Authors   55.2 box AP, 47.7 mask AP (their repository, object_detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.ConvNeXt", arch="xlarge", drop_path_rate=0.8),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.7))
