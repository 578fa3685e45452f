"""ATSS, Swin-T, COCO boxes, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/atss_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   47.2 box AP (arXiv 2103.14030, table 2; of this model they published the number alone,
          the head is mmdet's, the recipe that of appendix A2.2)
Ours      not measured yet
"""

_base_ = [
    "_base_/atss.py",
    "_base_/coco_detection_crop.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
