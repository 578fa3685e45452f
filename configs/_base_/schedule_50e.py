"""50 epochs, a tenth of the rate after 40, no warm-up (arXiv 2010.04159)."""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=50)

param_scheduler = [
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=50, milestones=[40], gamma=0.1)
]
