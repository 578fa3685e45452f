"""COCO 2017 instances, large-scale jitter: 0.1 to 2 times 1024, cut and padded to 1024x1024.

(arXiv 2112.01527, section 4.2, and arXiv 2012.07177.) Classes and layout as in coco_instance.py.
"""

_base_ = "coco_instance.py"

_side = (1024, 1024)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=_side, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=_side, recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type="Pad", size=_side, pad_val=dict(img=128, masks=0, seg=255)),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(
        pipeline=train_pipeline,
    ),
)

del _side  # what a config leaves defined becomes a key of it
