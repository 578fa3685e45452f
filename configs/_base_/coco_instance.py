"""COCO 2017 instances, multi-scale training with random crops (arXiv 2103.14030, appendix A2.2).

Classes are read from the annotation file; state train_dataloader.dataset.metainfo.classes to
choose among them. Expected under data_root: annotations/, train2017/, val2017/.
The commands put our readers in the place of LoadImageFromFile and of label maps' LoadAnnotations.
"""

_sides = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
_resize = dict(type="RandomChoiceResize", scales=[(1333, side) for side in _sides], keep_ratio=True)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [_resize],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(1333, 400), (1333, 500), (1333, 600)],
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
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type="swin_dense.CocoInstances",
        data_root="data/coco",
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="swin_dense.CocoInstances",
        data_root="data/coco",
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="swin_dense.CocoMetric",
    ann_file="data/coco/annotations/instances_val2017.json",
    metric=["bbox", "segm"],
)
test_evaluator = val_evaluator

del _sides, _resize  # what a config leaves defined becomes a key of it
