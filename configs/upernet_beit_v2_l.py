"""UPerNet, ViT-L of BEiT v2, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_beit_v2_l.py \
              --launcher pytorch --amp bf16 --pretrained beitv2_large_patch16_224_pt1k_ft21k.pth
          (of ImageNet-1K without labels, then ImageNet-21K: github.com/microsoft/unilm, beit2)
Authors   57.5 mIoU (microsoft/unilm, beit2)
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet_vit.py",
    "_base_/ade20k.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type="swin_dense.ViT",
        arch="large",
        class_token=True,
        relative_positions="table",
        img_size=512,
        absolute_positions=False,
        layer_scale_init_value=1e-6,
        out_blocks=(7, 11, 15, 23),
        drop_path_rate=0.2,
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4, channels=1024),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay=0.9))
