"""UPerNet, ConvNeXt-XL, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_convnext_xl_640.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_xlarge_22k_224.pth
          (those ImageNet-22K weights: github.com/facebookresearch/ConvNeXt)
Authors   53.6 mIoU at one scale, 54.0 at several (their repository, semantic_segmentation)
Ours      not measured yet

The rate falls by 0.9 from layer to layer towards the image; the authors' falls from stage to stage,
and all downsampling learns as slowly as the stem.
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k_640.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(type="swin_dense.ConvNeXt", arch="xlarge"),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(optimizer=dict(lr=8e-5), paramwise_cfg=dict(layer_decay=0.9))
