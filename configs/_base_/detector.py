"""What detectors of all heads begin with: mmdet's scope, and images normed as for ImageNet."""

default_scope = "mmdet"
visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])

model = dict(
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
)
