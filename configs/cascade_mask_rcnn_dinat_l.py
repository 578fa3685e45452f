"""Cascade Mask R-CNN, DiNAT-L, COCO instances, 36 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/cascade_mask_rcnn_dinat_l.py \
              --launcher pytorch \
              --pretrained dinat_large_in22k_224
          (those ImageNet-22K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   55.3 box AP, 47.8 mask AP (their repository, detection)
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
        arch="large",
        dilations=((1, 28), (1, 7, 1, 14), (1, 3, 1, 5, 1, 7), (1, 3)),
        drop_path_rate=0.6,
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
optim_wrapper = dict(optimizer=dict(lr=7.5e-5))
