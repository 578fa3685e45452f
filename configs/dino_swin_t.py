"""DINO of four scales, Swin-T, COCO boxes, 12 epochs, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/dino_swin_t.py \
              --launcher pytorch --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   none with Swin-T; 51.3 box AP in detrex, by DINO's authors, with the position encoding
          of Deformable DETR (offset -0.5, temperature 10000)
Ours      not measured yet
"""

_base_ = [
    "_base_/dino.py",
    "_base_/coco_detr.py",
    "_base_/adamw_detr.py",
    "_base_/schedule_12e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny", drop_path_rate=0.1),
    neck=dict(in_channels=[192, 384, 768]),
)
