"""Mask2Former for label maps (arXiv 2112.01527): one mask for each class in the image.

Left open: model.backbone with the channels that heads take from it, and data_preprocessor.size, to
which images are padded in training: the crop of the data. The commands let the size, where it is
open, and num_classes follow the data.
"""

default_scope = "mmseg"
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])

_positions = dict(num_feats=128, normalize=True)
_attention = dict(embed_dims=256, num_heads=8, dropout=0.0, batch_first=True)
_mlp = dict(embed_dims=256, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type="ReLU", inplace=True))

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        test_cfg=dict(size_divisor=32),
    ),
    decode_head=dict(
        type="swin_dense.Float32LabelMapMask2FormerHead",
        num_classes=150,
        strides=[4, 8, 16, 32],
        feat_channels=256,
        out_channels=256,
        num_queries=100,
        num_transformer_feat_level=3,
        align_corners=False,
        positional_encoding=_positions,
        pixel_decoder=dict(
            type="mmdet.MSDeformAttnPixelDecoder",
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
            type="mmdet.CrossEntropyLoss",
            use_sigmoid=False,
            loss_weight=2.0,
            class_weight=[1.0] * 150 + [0.1],  # the last for "no object"
        ),
        loss_mask=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type="mmdet.DiceLoss", naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type="mmdet.HungarianAssigner",
                match_costs=[
                    dict(type="mmdet.ClassificationCost", weight=2.0),
                    dict(type="mmdet.CrossEntropyLossCost", use_sigmoid=True, weight=5.0),
                    dict(type="mmdet.DiceCost", pred_act=True, eps=1.0, weight=5.0),
                ],
            ),
            sampler=dict(type="mmdet.MaskPseudoSampler"),
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

del _positions, _attention, _mlp  # what a config leaves defined becomes a key of it
