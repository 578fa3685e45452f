"""COCO 2017 instances, large-scale jitter counted in epochs: 0.1 to 2 times 1024, cut to 1024.

As in mmdetection's projects/ConvNeXt-V2. Images are not padded here, so that those of a batch are
padded to the largest of them only. Classes and layout as in coco_instance.py.
"""

_base_ = "coco_instance.py"

_side = (1024, 1024)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=_side, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(
        type="RandomCrop",
        crop_type="absolute_range",
        crop_size=_side,
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

del _side  # what a config leaves defined becomes a key of it
