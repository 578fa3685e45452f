"""HTC++, the detector of the Swin paper's system-level comparison (arXiv 2103.14030, A2.2).

Hybrid Task Cascade (arXiv 1901.07518) with its semantic branch, soft-NMS (arXiv 1704.04503), and
attention among all places of the last map, in front of the FPN. Left open: model.backbone and
model.neck, in which GlobalAttention comes first.

No code of it was published. What the paper counts decides what it leaves unsaid: 160M and 284M
parameters, 1043G and 1470G multiply-adds for Swin-B and -L (1280x800, 1000 boxes, 100 masks).
Ours are 159.5M and 283.8M, 1027G and 1435G, with windows of 7; projecting the tokens that only pad
windows, as the authors' code does, adds 15G and 35G:

    86.7M, 195.0M   backbone                  45.9M   box heads: four convolutions, a linear map
    12.6M,  28.3M   attention and its MLP      8.1M   mask heads, 0.1M of it from one to the next
     2.9M,   3.1M   FPN                        2.8M   semantic head; the RPN has 0.6M

Boxes of each class's own would add 1.0M and 1G; attention without the MLP is 8.4M short, and
windows of 12 need 1070G. What is not counted is as in Swin's blocks: norms first, dropped paths.
"""

_base_ = "cascade_mask_rcnn.py"

_scales = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))  # of a box's centre and of its size

model = dict(
    type="HybridTaskCascade",
    data_preprocessor=dict(pad_seg=True),
    roi_head=dict(
        type="HybridTaskCascadeRoIHead",
        interleaved=True,
        mask_info_flow=True,
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
                reg_class_agnostic=True,  # else as in cascade_mask_rcnn.py; lists do not merge
                reg_decoded_bbox=True,
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
            )
            for centre, size in _scales
        ],
        mask_head=[
            dict(
                type="HTCMaskHead",
                with_conv_res=stage > 0,  # takes the features of the stage before
                num_convs=4,
                in_channels=256,
                conv_out_channels=256,
                num_classes=80,
                loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
            )
            for stage in range(3)
        ],
        semantic_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[8],
        ),
        semantic_head=dict(
            type="FusedSemanticHead",
            num_ins=5,
            fusion_level=1,
            seg_scale_factor=1 / 8,
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=183,  # COCO's things and stuff, which follow no other data
            loss_seg=dict(type="CrossEntropyLoss", ignore_index=255, loss_weight=0.2),
        ),
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.001, nms=dict(type="soft_nms", min_score=0.001))),
)

del _scales  # what a config leaves defined becomes a key of it
