"""AdamW, a tenth of the rate for the backbone; norms, queries and position tables do not decay.

(arXiv 2112.01527, section 4.1, and the authors' code.) Of the keys found in a parameter's name the
longest alone counts, and with one found norm_decay_mult does not: each key says both factors.
"""

_rate = dict(lr_mult=0.1)
_still = dict(lr_mult=0.1, decay_mult=0.0)
_query = dict(decay_mult=0.0)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            "backbone": _rate,
            "backbone.patch_embed.norm": _still,
            **{
                f"backbone.layers.{stage}.blocks.{block}.norm": _still
                for stage in range(4)
                for block in range(18)
            },
            **{f"backbone.layers.{stage}.downsample.norm": _still for stage in range(3)},
            "backbone.norm": _still,
            "absolute_pos_embed": _still,
            "relative_position_bias_table": _still,
            "query_embed": _query,
            "query_feat": _query,
            "level_embed": _query,
        },
    ),
)

del _rate, _still, _query  # what a config leaves defined becomes a key of it
