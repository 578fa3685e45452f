"""Mask2Former for instances (arXiv 2112.01527): nine layers of queries that look within masks.

Left open: model.backbone. The numbers of classes follow the data; things are objects, and
instances are all things.
"""

_base_ = "detector.py"

_positions = dict(num_feats=128, normalize=True)
_attention = dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True)
_mlp = dict(embed_dims=256, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type="ReLU", inplace=True))
_classes = dict(num_things_classes=80, num_stuff_classes=0)

model = dict(
    type="Mask2Former",
    data_preprocessor=dict(pad_mask=True),
    panoptic_head=dict(
        **_classes,
        type="swin_dense.Float32Mask2FormerHead",
        strides=[4, 8, 16, 32],
        feat_channels=256,
        out_channels=256,
        num_queries=100,
        num_transformer_feat_level=3,
        positional_encoding=_positions,
        pixel_decoder=dict(
            type="MSDeformAttnPixelDecoder",
            num_outs=3,
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
            positional_encoding=_positions,
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=dict(**_attention, num_levels=3, num_points=4),
                    ffn_cfg=dict(**_mlp, feedforward_channels=1024),
                ),
            ),
        ),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=_attention,
                cross_attn_cfg=_attention,
                ffn_cfg=dict(**_mlp, feedforward_channels=2048),
            ),
        ),
        loss_cls=dict(
            type="CrossEntropyLoss",
            use_sigmoid=False,
            loss_weight=2.0,
            class_weight=[1.0] * 80 + [0.1],  # the last for "no object"
        ),
        loss_mask=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="DiceLoss", naive_dice=True, eps=1.0, loss_weight=5.0),
    ),
    panoptic_fusion_head=dict(**_classes, type="swin_dense.PanopticFusion"),
    train_cfg=dict(
        num_points=12544,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="ClassificationCost", weight=2.0),
                dict(type="CrossEntropyLossCost", use_sigmoid=True, weight=5.0),
                dict(type="DiceCost", pred_act=True, eps=1.0, weight=5.0),
            ],
        ),
        sampler=dict(type="MaskPseudoSampler"),
    ),
    test_cfg=dict(
        panoptic_on=False,
        instance_on=True,
        max_per_image=100,
        object_mask_thr=0.8,
        iou_thr=0.8,
        filter_low_score=True,
    ),
)

del _positions, _attention, _mlp, _classes  # what a config leaves defined becomes a key of it
