"""12 epochs, a tenth of the rate after 11, no warm-up (arXiv 2203.03605)."""

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[11], gamma=0.1)
]
default_hooks = dict(
    logger=dict(type="swin_dense.Progress", interval=50),
    checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3),
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
