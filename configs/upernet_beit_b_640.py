"""UPerNet, ViT-B of BEiT, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_beit_b_640.py \
              --launcher pytorch --amp bf16 --pretrained beit_base_patch16_224_pt22k_ft22k.pth
          (those ImageNet-22K weights: github.com/microsoft/unilm, beit)
Authors   53.6 mIoU at one scale, 54.3 at several (microsoft/unilm, beit/semantic_segmentation)
Ours      not measured yet
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
        arch="base",
        class_token=True,
        relative_positions="table",
        img_size=640,
        absolute_positions=False,
        layer_scale_init_value=0.1,
        out_blocks=(3, 5, 7, 11),
    ),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4, channels=768),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay=0.9))
