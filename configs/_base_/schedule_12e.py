"""12 epochs, a tenth of the rate after 11, no warm-up (arXiv 2203.03605)."""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=12)

param_scheduler = [
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1)
]
