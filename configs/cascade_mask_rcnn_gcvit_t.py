"""Cascade Mask R-CNN, GC ViT-T, COCO instances, 36 epochs at 1344x1344, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_gcvit_t.py \
              --launcher pytorch --amp bf16
          (those ImageNet-1K weights, from timm: NVIDIA's, for non-commercial use)
Authors   51.6 box AP, 44.6 mask AP (NVlabs/GCVit); at any size, with windows of 24
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    # Built for one size, in which images of 1333x800 lie in either direction.
    backbone=dict(
        type="swin_dense.Timm",
        model="gcvit_tiny.in1k",
        pretrained=True,
        img_size=(1344, 1344),
        output_norm=True,
        drop_path_rate=0.2,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
