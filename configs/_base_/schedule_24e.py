"""24 epochs, a tenth of the rate after 16 and 22 ("2x").

A run shortened by --max-iters keeps the warm-up within a tenth of it.
"""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=24)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
