"""UPerNet, Swin V2-L with windows of 16, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_swin_v2_l_640.py \
              --launcher pytorch --amp bf16 \
              --pretrained swinv2_large_patch4_window12to16_192to256_22kto1k_ft.pth
          (those ImageNet-22K weights, tuned on ImageNet-1K: github.com/SwinTransformer/storage,
          release v2.0.0)
Authors   none with these windows; 55.9 mIoU at several scales with windows of 40 and another recipe
          (arXiv 2111.09883, table 4 and appendix A2.1); here it is that of Swin V1
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    backbone=dict(
        type="swin_dense.SwinV2",
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=16,
        pretrained_window_sizes=(12, 12, 12, 6),
        drop_path_rate=0.3,
    ),
)
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
