"""COCO 2017 boxes as DETRs are trained: every second image cropped, empty ones kept.

The sizes of arXiv 2005.12872, section 4: the shorter side from 480 to 800, the longer to 1333.
"""

_base_ = "coco_detection.py"

_sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
_resize = dict(type="RandomChoiceResize", scales=[(1333, side) for side in _sides], keep_ratio=True)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [_resize],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(4200, 400), (4200, 500), (4200, 600)],  # no image is longer
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                _resize,
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(
    dataset=dict(filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline)
)

del _sides, _resize  # what a config leaves defined becomes a key of it
