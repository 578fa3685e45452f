"""Mask2Former for things and stuff, in one map without overlaps.

Left open: model.backbone. The numbers of classes follow the data.
"""

_base_ = "mask2former.py"

model = dict(
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    panoptic_head=dict(num_stuff_classes=53, loss_cls=dict(class_weight=[1.0] * 133 + [0.1])),
    panoptic_fusion_head=dict(num_stuff_classes=53),
    test_cfg=dict(panoptic_on=True, instance_on=False),
)
