"""80 000 iterations as in schedule_160k.py, for batches of 32 (arXiv 2111.09883, appendix A2.2)."""

_base_ = "by_iteration.py"

train_cfg = dict(max_iters=80000, val_interval=8000)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=750),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=750, end=80000),
]
default_hooks = dict(checkpoint=dict(interval=8000))
