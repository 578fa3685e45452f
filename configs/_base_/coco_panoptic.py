"""COCO 2017 things and stuff, large-scale jitter: 0.1 to 2 times 1024, cut and padded to 1024x1024.

(arXiv 2112.01527, section 4.2.) Things that a crop leaves without a pixel are not asked for.
Classes are read from the annotation file. Expected under data_root: annotations/, with
panoptic_{train,val}2017.json and the folders of PNGs of the same names, train2017/, val2017/.
The commands put our readers in the place of LoadImageFromFile and of label maps' LoadAnnotations.
"""

_side = (1024, 1024)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="swin_dense.LoadSegments"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=_side, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=_side, recompute_bbox=True, allow_negative_crop=True),
    dict(
        type="FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True, keep_empty=False
    ),  # False: images of stuff alone stay
    dict(type="Pad", size=_side, pad_val=dict(img=128, masks=0, seg=255)),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(
        type="PackDetInputs",
        meta_keys=(
            "img_id",
            "img_path",
            "ori_shape",
            "img_shape",
            "scale_factor",
            "seg_map_path",  # the metric reads the truth from it
            "segments",
        ),
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="swin_dense.CocoPanoptic",
        data_root="data/coco",
        ann_file="annotations/panoptic_train2017.json",
        data_prefix=dict(img="train2017", seg="annotations/panoptic_train2017"),
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
        type="swin_dense.CocoPanoptic",
        data_root="data/coco",
        ann_file="annotations/panoptic_val2017.json",
        data_prefix=dict(img="val2017", seg="annotations/panoptic_val2017"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="swin_dense.PanopticMetric")
test_evaluator = val_evaluator

del _side  # what a config leaves defined becomes a key of it
