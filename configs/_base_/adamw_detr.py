"""AdamW of the DETRs: the backbone at a tenth of the rate, gradients of norm 0.1 at most.

As in adamw.py, norms, biases and tables of the backbone do not decay; the DETRs' authors decay them
like the rest, by 1e-4. The rate is that of batches of 16; it follows the batch of a run.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="swin_dense.LayerDecay",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(layer_decay=1.0, custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
