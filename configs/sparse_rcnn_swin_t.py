"""Sparse R-CNN of 300 proposals, Swin-T, COCO boxes, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/sparse_rcnn_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   47.9 box AP (arXiv 2103.14030, table 2; of this model they published the number alone,
          the head and the bound of gradients are mmdet's, whose rate is a quarter of this one, the
          rest is their appendix A2.2)
Ours      not measured yet
"""

_base_ = [
    "_base_/sparse_rcnn.py",
    "_base_/coco_detection_crop.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
