"""RetinaNet, Swin-T, COCO boxes, 12 epochs at one scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/retinanet_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   none: they published no such model; mmdet has a config without a result, trained by SGD
          at a rate of 0.01; the rate here is that of their Mask R-CNN
Ours      not measured yet
"""

_base_ = [
    "_base_/retinanet.py",
    "_base_/coco_detection_800.py",
    "_base_/adamw.py",
    "_base_/schedule_1x.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
