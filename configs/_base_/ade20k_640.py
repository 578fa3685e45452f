"""ADE20K as in ade20k.py, for crops of 640x640."""

_base_ = "ade20k.py"

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="swin_dense.LoadImage"),
            dict(type="swin_dense.LoadLabelMap"),
            dict(type="RandomResize", scale=(2560, 640), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(640, 640), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ]
    )
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="swin_dense.LoadImage"),
            dict(type="Resize", scale=(2560, 640), keep_ratio=True),
            dict(type="swin_dense.LoadLabelMap"),  # after Resize: compared at the original size
            dict(type="PackSegInputs"),
        ]
    )
)
test_dataloader = val_dataloader
