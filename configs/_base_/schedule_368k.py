"""368 750 iterations, a tenth of the rate after 8/9 and 26/27 of them, no warm-up.

50 epochs of COCO in batches of 16, as in the authors' configs (arXiv 2112.01527, section 4.2, says
0.9 and 0.95 of them).
"""

_base_ = "by_iteration.py"

train_cfg = dict(max_iters=368750, val_interval=5000)

param_scheduler = dict(
    type="MultiStepLR",
    by_epoch=False,
    begin=0,
    end=368750,
    milestones=[327778, 355092],
    gamma=0.1,
)
default_hooks = dict(checkpoint=dict(interval=5000))
