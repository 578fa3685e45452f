"""12 epochs as in schedule_1x.py, a tenth of the rate after 9 and 11 (as FocalNet is trained)."""

_base_ = "schedule_1x.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[9, 11], gamma=0.1),
]
