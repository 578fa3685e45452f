"""368 750 iterations, a tenth of the rate after 8/9 and 26/27 of them, no warm-up.

50 epochs of COCO in batches of 16 (arXiv 2112.01527, section 4.1).
"""

train_cfg = dict(type="IterBasedTrainLoop", max_iters=368750, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = dict(
    type="MultiStepLR",
    by_epoch=False,
    begin=0,
    end=368750,
    milestones=[327778, 355092],
    gamma=0.1,
)
default_hooks = dict(
    logger=dict(type="swin_dense.Progress", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5000, max_keep_ckpts=3),
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
