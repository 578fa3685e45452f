"""UPerNet, PiT-S, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_pit_s.py \
              --launcher pytorch --amp bf16
          (those ImageNet-1K weights, from timm: Apache-2.0)
Authors   no segmentation (arXiv 2103.16302); the recipe is Swin's
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k.py",
    "_base_/adamw_ade20k.py",
    "_base_/schedule_160k.py",
]

model = dict(
    # Built for one size: images are tested in overlapping pieces of it.
    backbone=dict(
        type="swin_dense.Timm",
        model="pit_s_224.in1k",
        pretrained=True,
        img_size=(512, 512),
        output_norm=True,
        drop_path_rate=0.1,
    ),
    decode_head=dict(in_channels=[144, 288, 576], in_index=[0, 1, 2]),
    auxiliary_head=dict(in_channels=288, in_index=1),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
