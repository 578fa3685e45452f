"""A small UPerNet that a laptop trains: Swin with 24 channels, two blocks a stage.

Run       python tools/train.py configs/upernet_swin_nano.py --max-iters 2000
Ours      see demo/weights/README.md
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/shapes_label_maps.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(160, 160)),
    backbone=dict(type="swin_dense.Swin", arch="nano", drop_path_rate=0.0),
    decode_head=dict(in_channels=[24, 48, 96, 192], channels=64, num_classes=7),
    auxiliary_head=dict(in_channels=96, channels=32, num_classes=7),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10.0))
auto_scale_lr = dict(base_batch_size=8)
