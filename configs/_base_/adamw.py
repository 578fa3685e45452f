"""AdamW without decay on the backbone's norms and position tables (arXiv 2103.14030, A2), nor on
Swin V2's scales and position MLPs, as its authors train it.

Batch norms of heads are named "bn" and decay, as in the authors' configs.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "cpb_mlp": dict(decay_mult=0.0),
            "logit_scale": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
