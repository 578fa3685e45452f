"""UPerNet, DiNAT-L, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_dinat_l_640.py \
              --launcher pytorch \
              --pretrained dinat_large_in22k_224
          (those ImageNet-22K weights: github.com/SHI-Labs/Neighborhood-Attention-Transformer)
Authors   54.0 mIoU at one scale, 54.9 at several (their repository, segmentation)
Ours      not measured yet
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw_ade20k.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(
        type="swin_dense.DiNAT",
        arch="large",
        dilations=(
            (1, 20),
            (1, 5, 1, 10),
            (1, 2, 1, 3, 1, 4, 1, 5, 1, 2, 1, 3, 1, 4, 1, 5, 1, 5),
            (1, 2),
        ),
        drop_path_rate=0.3,
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
