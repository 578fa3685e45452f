"""40 000 iterations as in schedule_160k.py, for batches of 64 (arXiv 2111.09883, appendix A2.1)."""

_base_ = "by_iteration.py"

train_cfg = dict(max_iters=40000, val_interval=4000)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=375),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=375, end=40000),
]
default_hooks = dict(checkpoint=dict(interval=4000))
