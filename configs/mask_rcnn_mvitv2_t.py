"""Mask R-CNN, MViTv2-T, COCO instances, 36 epochs multi-scale, batch 64 (8 x 8).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_mvitv2_t.py \
              --launcher pytorch --amp bf16
          (those ImageNet-1K weights, from timm: Apache-2.0)
Authors   48.3 box AP, 43.8 mask AP (facebookresearch/detectron2, projects/MViTv2)
Ours      not measured yet
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.Timm",
        model="mvitv2_tiny.fb_in1k",
        pretrained=True,
        output_norm=True,
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(optimizer=dict(lr=1.6e-4))
auto_scale_lr = dict(base_batch_size=64)
