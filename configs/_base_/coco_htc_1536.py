"""COCO 2017 for HTC++ with Swin V2: 0.1 to 2 times 1536, cut and padded (arXiv 2111.09883, A2.1).

Tested with a shorter side of 1100. Data and layout are those of coco_htc.py.
"""

_base_ = "coco_htc.py"

_side = (1536, 1536)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1833, 1100), keep_ratio=True),  # 1333 / 800 as elsewhere
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True, with_seg=True),
    dict(type="swin_dense.InstaBoost"),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomResize", scale=_side, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=_side, recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type="Pad", size=_side, pad_val=dict(img=128, masks=0, seg=255)),
    dict(type="PackDetInputs"),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

del _side  # what a config leaves defined becomes a key of it
