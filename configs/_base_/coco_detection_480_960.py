"""COCO 2017 boxes, the shorter side drawn from 480 to 960 (as the Swin paper's RepPoints V2)."""

_base_ = "coco_detection.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in range(480, 961, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
