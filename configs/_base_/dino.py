"""DINO: 900 queries chosen from the encoder, 100 denoising ones, 6 + 6 layers (arXiv 2203.03605).

A Deformable DETR with other numbers. Left open: model.backbone; with more than four levels also
the maps it returns, and their number in model, model.neck, and the attention to the maps in both
transformers.
"""

_base_ = "deformable_detr.py"

_undropped = dict(dropout=0.0)
_ffn = dict(feedforward_channels=2048, ffn_drop=0.0)

model = dict(
    type="DINO",
    num_queries=900,
    with_box_refine=True,
    as_two_stage=True,
    encoder=dict(layer_cfg=dict(self_attn_cfg=_undropped, ffn_cfg=_ffn)),
    decoder=dict(layer_cfg=dict(self_attn_cfg=_undropped, cross_attn_cfg=_undropped, ffn_cfg=_ffn)),
    positional_encoding=dict(offset=0.0, temperature=20),
    bbox_head=dict(type="swin_dense.Float32DINOHead", loss_cls=dict(loss_weight=1.0)),
    dn_cfg=dict(
        label_noise_scale=0.5,
        box_noise_scale=1.0,
        group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100),
    ),
    test_cfg=dict(max_per_img=300),
)

del _undropped, _ffn  # what a config leaves defined becomes a key of it
