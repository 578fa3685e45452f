"""RepPoints V2 with a BiFPN, Swin-T, COCO boxes, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/reppoints_v2_swin_t.py \
              --launcher pytorch --amp bf16 --pretrained swin_tiny_patch4_window7_224.pth
          (those ImageNet-1K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   50.0 box AP (their repository, Swin-Transformer-Object-Detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/reppoints_v2.py",
    "_base_/coco_detection_480_960.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="tiny"),
    neck=dict(in_channels=[192, 384, 768]),
)
