"""160 000 iterations, linear warm-up, then linear decay (arXiv 2103.14030, appendix A2.3)."""

train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000),
]
default_hooks = dict(
    logger=dict(type="swin_dense.Progress", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=16000, max_keep_ckpts=3),
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
