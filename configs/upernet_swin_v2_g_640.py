"""UPerNet, Swin V2-G with windows of 40, ADE20K, 80 000 iterations at 640x640, batch 32 (16 x 2).

Run       torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
              tools/train.py configs/upernet_swin_v2_g_640.py --launcher pytorch --amp bf16
          (from random weights: theirs, of 70 million images, are not published)
Authors   59.1 mIoU (arXiv 2111.09883, table 4; recipe: appendix A2.2); with windows of 56 in images
          of 896 59.3, at several scales 59.9
Ours      not measured yet

Our kernels hold windows of 32 at most; these run on torch's scaled_dot_product_attention.
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw.py",
    "_base_/schedule_80k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        type="swin_dense.SwinV2",
        arch="giant",
        window_size=40,
        pretrained_window_sizes=(12, 12, 12, 6),
        drop_path_rate=0.4,
        with_cp=True,
    ),
    decode_head=dict(in_channels=[512, 1024, 2048, 4096]),
    auxiliary_head=dict(in_channels=2048),
)
optim_wrapper = dict(optimizer=dict(lr=4e-5))
auto_scale_lr = dict(base_batch_size=32)
