"""UPerNet on four maps of a plain ViT, made a pyramid by mmseg's Feature2Pyramid.

(arXiv 2106.08254, 2111.06377.) Left open: model.backbone with the blocks whose maps are taken, the
channels of neck and heads, and data_preprocessor.size.
"""

_base_ = "upernet.py"

model = dict(
    neck=dict(
        type="Feature2Pyramid",
        rescales=[4, 2, 1, 0.5],
        norm_cfg=dict(type="SyncBN", requires_grad=True),  # plain BN without several GPUs
    ),
)
