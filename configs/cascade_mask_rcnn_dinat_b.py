"""Cascade Mask R-CNN, DiNAT-B, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_dinat_b.py \
              --launcher pytorch --amp bf16 \
              --pretrained dinat_base_in1k_224
          (those ImageNet-1K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   53.4 box AP, 46.2 mask AP (their repository, detection)
Ours      not measured yet
"""

_base_ = [
    "_base_/cascade_mask_rcnn.py",
    "_base_/coco_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.DiNAT",
        arch="base",
        dilations=((1, 28), (1, 7, 1, 14), (1, 3, 1, 5, 1, 7), (1, 3)),
        drop_path_rate=0.6,
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-5))
