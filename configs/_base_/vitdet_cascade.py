"""Cascade Mask R-CNN of ViTDet: vitdet.py with three stages of boxes (arXiv 2203.16527, A.2).

As in the authors' configs (detectron2, projects/ViTDet) boxes are one for all classes and judged by
their differences, not by their overlap. Left open: model.backbone,
whose last map alone is taken.
"""

_base_ = "cascade_mask_rcnn.py"

_norm = dict(type="swin_dense.ChannelNorm", eps=1e-6)
_scales = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # of a box's centre and of its size

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # a square, as the authors' square_pad
    backbone=dict(out_indices=(3,)),  # the last map alone
    neck=dict(type="swin_dense.SimpleFeaturePyramid"),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=[
            dict(
                type="Shared4Conv1FCBBoxHead",
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                norm_cfg=_norm,
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder",
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[centre, centre, size, size],
                ),
                reg_class_agnostic=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="L1Loss", loss_weight=1.0),
            )
            for centre, size in _scales
        ],
        mask_head=dict(norm_cfg=_norm),
    ),
)

del _norm, _scales  # what a config leaves defined becomes a key of it
