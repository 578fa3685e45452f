"""RetinaNet, Swin V2-T with windows of 8, COCO boxes, 12 epochs at one scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/retinanet_swin_v2_t.py \
              --launcher pytorch --amp bf16 --pretrained swinv2_tiny_patch4_window8_256.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   none: they published no such model; the recipe is that of Swin V1
Ours      not measured yet
"""

_base_ = [
    "_base_/retinanet.py",
    "_base_/coco_detection_800.py",
    "_base_/adamw.py",
    "_base_/schedule_1x.py",
]

model = dict(
    backbone=dict(type="swin_dense.SwinV2", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
