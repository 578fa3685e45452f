"""UPerNet, ConvNeXt-B, ADE20K, 160 000 iterations at 640x640, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_convnext_b_640.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_224.pth
          (those ImageNet-22K weights: github.com/facebookresearch/ConvNeXt)
Authors   52.6 mIoU at one scale, 53.1 at several (their repository, semantic_segmentation)
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
    backbone=dict(type="swin_dense.ConvNeXt", arch="base"),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.9))
