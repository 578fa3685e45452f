"""RepPoints V2: points that corners and a map of classes correct (arXiv 2007.08508), on a BiFPN.

Group norm in neck and head, two of the points are corners of the box, and a class's score is its
IoU. Left open: model.backbone. num_classes follows the data.
"""

_base_ = "detector.py"

_norm = dict(type="GN", num_groups=32, requires_grad=True)

model = dict(
    type="RepPointsDetector",
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(type="swin_dense.BiFPN", out_channels=256, num_outs=5, num_repeats=2, norm_cfg=_norm),
    bbox_head=dict(
        type="swin_dense.RepPointsV2Head",
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        point_feat_channels=256,
        corner_channels=64,
        stacked_convs=3,
        norm_cfg=_norm,
        num_points=9,
        gradient_mul=0.1,
        point_strides=[8, 16, 32, 64, 128],
        point_base_scale=4,
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox_init=dict(type="GIoULoss", loss_weight=1.0),
        loss_bbox_refine=dict(type="GIoULoss", loss_weight=2.0),
        loss_heat=dict(type="GaussianFocalLoss", alpha=2.0, gamma=4.0, loss_weight=0.25),
        loss_offset=dict(type="SmoothL1Loss", beta=1 / 9, loss_weight=1.0),
        loss_semantic=dict(
            type="FocalLoss",
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            reduction="sum",
            loss_weight=0.1,
        ),
    ),
    train_cfg=dict(
        init=dict(assigner=dict(type="PointAssigner", scale=4, pos_num=1), pos_weight=-1),
        refine=dict(assigner=dict(type="swin_dense.LevelATSSAssigner", topk=9), pos_weight=-1),
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type="nms", iou_threshold=0.6),
        max_per_img=100,
    ),
)

del _norm  # what a config leaves defined becomes a key of it
