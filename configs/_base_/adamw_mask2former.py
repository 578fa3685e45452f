"""AdamW, a tenth of the rate for the backbone; norms, queries and position tables do not decay.

(arXiv 2112.01527, section 4.2, and the authors' code.) Nor do the backbone's biases, which theirs
does decay. The rate is that of batches of 16; it follows the batch of a run.
"""

_query = dict(decay_mult=0.0)

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="swin_dense.LayerDecay",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        layer_decay=1.0,
        norm_decay_mult=0.0,
        custom_keys=dict(
            backbone=dict(lr_mult=0.1),
            query_embed=_query,
            query_feat=_query,
            level_embed=_query,
        ),
    ),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)

del _query  # what a config leaves defined becomes a key of it
