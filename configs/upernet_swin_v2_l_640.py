"""UPerNet, Swin V2-L with windows of 40, ADE20K, 40 000 iterations at 640x640, batch 64 (32 x 2).

Run       torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
              tools/train.py configs/upernet_swin_v2_l_640.py --launcher pytorch --amp bf16 \
              --pretrained swinv2_large_patch4_window12_192_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v2.0.0)
Authors   55.9 mIoU at several scales (arXiv 2111.09883, table 4; recipe: appendix A2.1)
Ours      not measured yet

Our kernels hold windows of 32 at most; these run on torch's scaled_dot_product_attention.
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw.py",
    "_base_/schedule_40k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        type="swin_dense.SwinV2",
        arch="large",
        window_size=40,
        pretrained_window_sizes=(12, 12, 12, 6),
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = dict(optimizer=dict(lr=6e-5))
auto_scale_lr = dict(base_batch_size=64)
