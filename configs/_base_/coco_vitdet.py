"""COCO 2017 instances, large-scale jitter as in coco_instance_lsj.py, tested at 1024x1024.

The longer side becomes 1024; the model pads the image to a square, for which its relative positions
are made (detectron2, projects/ViTDet).
"""

_base_ = "coco_instance_lsj.py"

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
