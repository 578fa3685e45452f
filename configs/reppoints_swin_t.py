"""RepPoints, Swin-T, COCO boxes, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/reppoints_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   none: theirs is RepPoints V2, see reppoints_v2_swin_t.py; this is the first RepPoints with
          the recipe of arXiv 2103.14030, appendix A2.2
Ours      not measured yet
"""

_base_ = [
    "_base_/reppoints.py",
    "_base_/coco_detection_crop.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
