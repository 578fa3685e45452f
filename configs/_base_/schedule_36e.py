"""36 epochs, a tenth of the rate after 27 and 33 ("3x"; arXiv 2103.14030, appendix A2.2).

A run shortened by --max-iters keeps the warm-up within a tenth of it.
"""

_base_ = "by_epoch.py"

train_cfg = dict(max_epochs=36)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
