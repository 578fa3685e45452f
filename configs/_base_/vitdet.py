"""Mask R-CNN of ViTDet: a plain ViT, a simple feature pyramid, heads with norms of channels.

(arXiv 2203.16527, section 3 and appendix A.2; detectron2, projects/ViTDet.)
Left open: model.backbone, whose last map alone is taken.
"""

_base_ = "mask_rcnn.py"

_norm = dict(type="swin_dense.ChannelNorm", eps=1e-6)

model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),  # a square, as the authors' square_pad
    backbone=dict(out_indices=(3,)),  # the last map alone
    neck=dict(type="swin_dense.SimpleFeaturePyramid"),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=_norm),
        mask_head=dict(norm_cfg=_norm),
    ),
)

del _norm  # what a config leaves defined becomes a key of it
