"""AdamW with the numbers of arXiv 2103.14030, A2: 1e-4 and 0.05 for batches of 16.

Norms, biases, position tables and what else the backbone exempts do not decay, as when the authors
train classification; in their detectors' configs biases and the norms of heads do. The rate follows
the batch of a run.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="swin_dense.LayerDecay",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(layer_decay=1.0, flat_decay_mult=0.0),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
