"""160 000 iterations, the rate falls with (1 - t)^0.9, no warm-up (arXiv 2112.01527, 4.2)."""

_base_ = "schedule_160k.py"

param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=160000)]
