"""12 epochs, a tenth of the rate after 8 and 11 ("1x").

A run shortened by --max-iters keeps the warm-up within a tenth of it.
"""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=12)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
