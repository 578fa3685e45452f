"""Cascade Mask R-CNN: three stages of boxes, each from those of the last (arXiv 1906.09756).

With the heads of the Swin paper: four convolutions and a linear map, boxes judged by GIoU
(arXiv 2103.14030, A2.2). Left open: what mask_rcnn.py leaves open.
"""

_base_ = "mask_rcnn.py"

_ious = (0.5, 0.6, 0.7)
_scales = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # of a box's centre and of its size

model = dict(
    rpn_head=dict(loss_bbox=dict(type="SmoothL1Loss", beta=1 / 9)),
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                type="ConvFCBBoxHead",
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                norm_cfg=dict(type="SyncBN", requires_grad=True),  # BN without several GPUs
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder",
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[centre, centre, size, size],
                ),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for centre, size in _scales
        ],
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),
        rpn_proposal=dict(max_per_img=2000),
        rcnn=[
            dict(
                assigner=dict(
                    type="MaxIoUAssigner",
                    match_low_quality=False,
                    ignore_iof_thr=-1,
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                ),
                sampler=dict(
                    type="RandomSampler",
                    num=512,
                    pos_fraction=0.25,
                    neg_pos_ub=-1,
                    add_gt_as_proposals=True,
                ),
                mask_size=28,
                pos_weight=-1,
            )
            for iou in _ious
        ],
    ),
)

del _ious, _scales  # what a config leaves defined becomes a key of it
