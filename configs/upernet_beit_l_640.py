"""UPerNet, ViT-L of BEiT, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_beit_l_640.py \
              --launcher pytorch --amp bf16 --pretrained beit_large_patch16_224_pt22k_ft22k.pth
          (those ImageNet-22K weights: github.com/microsoft/unilm, beit)
Authors   56.7 mIoU at one scale, 57.0 at several (microsoft/unilm, beit)
Ours      not measured yet

The authors add up two batches of 8 for each of the 160 000 iterations.
"""

_base_ = [
    "_base_/upernet_vit.py",
    "_base_/ade20k_640.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        type="swin_dense.ViT",
        arch="large",
        class_token=True,
        relative_positions="table",
        img_size=640,
        absolute_positions=False,
        layer_scale_init_value=1e-6,
        out_blocks=(7, 11, 15, 23),
        drop_path_rate=0.2,
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4, channels=1024),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(layer_decay=0.95))
