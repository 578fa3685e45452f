"""COCO 2017 instances beside label maps of things and stuff, the shorter side from 400 to 1400.

As HTC++ is trained (arXiv 2103.14030, A2.2), objects moved by InstaBoost; at which size it is
tested the paper does not say. Expected under data_root, beside what coco_instance.py expects:
stuffthingmaps/train2017/, COCO-Stuff's PNGs of 0 to 181 and 255.
"""

_base_ = "coco_instance.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True, with_seg=True),
    dict(type="swin_dense.InstaBoost"),
    dict(type="RandomResize", scale=[(1600, 400), (1600, 1400)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(
    dataset=dict(data_prefix=dict(seg="stuffthingmaps/train2017"), pipeline=train_pipeline)
)
