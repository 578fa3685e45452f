"""A small Mask R-CNN that a laptop trains: Swin with 24 channels, two blocks a stage.

Run       python tools/train.py configs/mask_rcnn_swin_nano.py
Ours      see demo/weights/README.md
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/shapes_instance.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="nano", drop_path_rate=0.0),
    neck=dict(in_channels=[24, 48, 96, 192], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=160, num_classes=6),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=150)),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=8)
