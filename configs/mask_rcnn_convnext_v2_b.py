"""Mask R-CNN, ConvNeXt V2-B, COCO instances, 36 epochs with large-scale jitter, batch 32 (8 x 4).

Run       torchrun --nproc-per-node 8 tools/train.py configs/mask_rcnn_convnext_v2_b.py \
              --launcher pytorch --amp bf16 --pretrained convnextv2_base_1k_224_fcmae
          (those ImageNet-1K weights, of masked pre-training, are CC-BY-NC-4.0:
          github.com/facebookresearch/ConvNeXt-V2)
Authors   52.9 box AP, 46.4 mask AP (mmdetection, projects/ConvNeXt-V2; the authors of ConvNeXt V2
          publish no code for detectors)
Ours      not measured yet

The strength of channels is taken over the border of a batch too, so images are padded to the
largest of their batch only, as there.
"""

_base_ = [
    "_base_/mask_rcnn.py",
    "_base_/coco_instance_lsj_36e.py",
    "_base_/adamw.py",
    "_base_/schedule_36e.py",
]

model = dict(
    backbone=dict(type="swin_dense.ConvNeXtV2", arch="base"),
    neck=dict(in_channels=[128, 256, 512, 1024]),
    test_cfg=dict(rcnn=dict(nms=dict(type="soft_nms"))),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay=0.95))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=32)
