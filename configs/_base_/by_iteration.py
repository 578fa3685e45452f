"""Loops, progress, checkpoints and averages of a run that is counted in iterations.

Every experiment has this fragment or by_epoch.py: custom_imports makes mmengine know our names.
Left open: train_cfg.max_iters, the interval of evaluations and of checkpoints, and param_scheduler.
"""

custom_imports = dict(imports=["swin_dense.openmmlab"], allow_failed_imports=False)

train_cfg = dict(type="IterBasedTrainLoop")
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    logger=dict(type="swin_dense.Progress", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, max_keep_ckpts=3),
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
