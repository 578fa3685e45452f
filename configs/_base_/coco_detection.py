"""COCO 2017 boxes, the shorter side drawn from 640 to 800 (as DyHead's Swin-T is trained)."""

_base_ = "coco_instance.py"

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in (640, 672, 704, 736, 768, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

val_evaluator = dict(metric="bbox")
test_evaluator = val_evaluator
