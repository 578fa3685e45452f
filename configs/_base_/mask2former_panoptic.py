"""Mask2Former for things and stuff, in one map without overlaps.

Left open: model.backbone. The numbers of classes follow the data.
"""

_base_ = "mask2former.py"

_classes = dict(num_things_classes=80, num_stuff_classes=53)

model = dict(
    data_preprocessor=dict(pad_seg=True, seg_pad_value=255),
    panoptic_head=dict(**_classes, loss_cls=dict(class_weight=[1.0] * 133 + [0.1])),
    panoptic_fusion_head=_classes,
    test_cfg=dict(panoptic_on=True, instance_on=False),
)

del _classes  # what a config leaves defined becomes a key of it
