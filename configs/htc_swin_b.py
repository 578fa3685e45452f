"""HTC++, Swin-B with windows of 7, COCO instances, 72 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/htc_swin_b.py \
              --launcher pytorch --amp bf16 --pretrained swin_base_patch4_window7_224_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   56.4 box AP, 49.1 mask AP (arXiv 2103.14030, table 2c; 160M parameters)
Ours      not measured yet
"""

_base_ = [
    "_base_/htc.py",
    "_base_/coco_htc.py",
    "_base_/adamw.py",
    "_base_/schedule_72e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="base"),
    neck=[
        dict(type="swin_dense.GlobalAttention", in_channels=[128, 256, 512, 1024]),
        dict(type="FPN", in_channels=[128, 256, 512, 1024], out_channels=256, num_outs=5),
    ],
)
