"""Loops, progress, checkpoints and averages of a run that is counted in epochs.

Every experiment has this fragment or by_iteration.py: custom_imports makes mmengine know our names.
Left open: train_cfg.max_epochs and param_scheduler.
"""

custom_imports = dict(imports=["swin_dense.openmmlab"], allow_failed_imports=False)

train_cfg = dict(type="EpochBasedTrainLoop", val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

default_hooks = dict(
    logger=dict(type="swin_dense.Progress", interval=50),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3),
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
