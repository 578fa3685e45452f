"""UPerNet, ViT-B of MAE, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_mae_b.py \
              --launcher pytorch --amp bf16 --pretrained mae_pretrain_vit_base
          (those weights: github.com/facebookresearch/mae, not for commercial use)
Authors   48.1 mIoU at one scale (arXiv 2111.06377, table 5)
Ours      not measured yet

The recipe is mmsegmentation's (48.1 and 48.7 at several scales), whose tables of relative positions
and layer scales start anew.
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
        arch="base",
        class_token=True,
        relative_positions="table",
        img_size=512,
        layer_scale_init_value=1.0,
        out_blocks=(3, 5, 7, 11),
    ),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4, channels=768),
    auxiliary_head=dict(in_channels=768),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.65))
