"""24 epochs, a tenth of the rate after 16 and 22 ("2x").

The runner keeps the warm-up within a tenth of a shorter run.
"""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=24)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1),
]
