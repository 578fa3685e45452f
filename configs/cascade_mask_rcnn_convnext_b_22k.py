"""Cascade Mask R-CNN, ConvNeXt-B, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_convnext_b_22k.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth
          (those ImageNet-22K weights: github.com/facebookresearch/ConvNeXt)
Authors   54.0 box AP, 46.9 mask AP (their repository, object_detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.ConvNeXt", arch="base", drop_path_rate=0.6),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.8))
