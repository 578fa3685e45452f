"""HTC++, Swin-L with windows of 7, COCO instances, 72 epochs multi-scale, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/htc_swin_l.py \
              --launcher pytorch --amp bf16 --pretrained swin_large_patch4_window7_224_22k.pth
          (those ImageNet-22K weights: github.com/SwinTransformer/storage, release v1.0.0)
Authors   57.1 box AP, 49.5 mask AP, at several scales 58.0 and 50.4 (arXiv 2103.14030, table 2c;
          284M parameters); their repository says 36 epochs
Ours      not measured yet
"""

_base_ = [
    "_base_/htc.py",
    "_base_/coco_htc.py",
    "_base_/adamw.py",
    "_base_/schedule_72e.py",
]

model = dict(
    backbone=dict(type="swin_dense.Swin", arch="large"),
    neck=[
        dict(type="swin_dense.GlobalAttention", in_channels=[192, 384, 768, 1536]),
        dict(type="FPN", in_channels=[192, 384, 768, 1536], out_channels=256, num_outs=5),
    ],
)
