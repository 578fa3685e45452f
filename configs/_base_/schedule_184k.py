"""184 375 iterations, a tenth of the rate after 8/9 and 26/27 of them, warm-up of 250.

100 epochs of COCO in batches of 64 (arXiv 2203.16527, appendix A.2; detectron2, projects/ViTDet).
"""

_base_ = "by_iteration.py"

train_cfg = dict(max_iters=184375, val_interval=5000)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=184375,
        milestones=[163889, 177546],
        gamma=0.1,
    ),
]
default_hooks = dict(checkpoint=dict(interval=5000))
