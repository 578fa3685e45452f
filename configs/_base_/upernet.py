"""UPerNet with an auxiliary FCN head on the third stage (arXiv 1807.10221).

Left open: model.backbone with the channels that heads take from it, and data_preprocessor.size, to
which images are padded in training: the crop of the data. The commands let the size, where it is
open, and num_classes follow the data.
"""

default_scope = "mmseg"
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])

_head = dict(
    dropout_ratio=0.1,
    num_classes=150,
    norm_cfg=dict(type="SyncBN", requires_grad=True),  # plain BN without several GPUs
    align_corners=False,
)

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    decode_head=dict(
        **_head,
        type="UPerHead",
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        **_head,
        type="FCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

del _head  # what a config leaves defined becomes a key of it
