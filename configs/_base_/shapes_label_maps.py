"""The built-in shapes as label maps, at their own size (208x160), flipped.

The commands write the set when it is missing, see swin_dense/datasets/shapes.py.
The commands put our readers in the place of LoadImageFromFile and of label maps' LoadAnnotations.
"""

_crop = (160, 160)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(208, 160), ratio_range=(0.9, 1.2), keep_ratio=True),
    dict(type="RandomCrop", crop_size=_crop, cat_max_ratio=0.9),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(208, 160), keep_ratio=True),
    dict(type="LoadAnnotations"),  # after Resize: compared at the original size
    dict(type="PackSegInputs"),
]

data = "shapes"
_dataset = dict(
    type="swin_dense.LabelMaps",
    data_root="data/shapes",
    metainfo=dict(classes=("background", "circle", "square", "triangle", "star", "ring", "cross")),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **_dataset,
        data_prefix=dict(img_path="images/train", seg_map_path="label_maps/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **_dataset,
        data_prefix=dict(img_path="images/val", seg_map_path="label_maps/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="swin_dense.IoUMetric")
test_evaluator = val_evaluator

del _crop, _dataset  # else they become keys of the config
