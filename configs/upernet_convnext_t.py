"""UPerNet, ConvNeXt-T, ADE20K, 160 000 iterations at 512x512, batch 16 (8 x 2).

Run       torchrun --nproc-per-node 8 tools/train.py configs/upernet_convnext_t.py \
              --launcher pytorch --amp bf16 \
              --pretrained https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224.pth
          (those ImageNet-1K weights: github.com/facebookresearch/ConvNeXt)
Authors   46.0 mIoU at one scale, 46.7 at several (their repository, semantic_segmentation)
Ours      not measured yet

The rate falls by 0.9 from layer to layer towards the image; the authors' falls from stage to stage,
and all downsampling learns as slowly as the stem.
"""

_base_ = [
    "_base_/upernet.py",
    "_base_/ade20k.py",
    "_base_/adamw.py",
    "_base_/schedule_160k.py",
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="swin_dense.ConvNeXt", arch="tiny"),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.9))
