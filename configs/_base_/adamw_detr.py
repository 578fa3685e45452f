"""AdamW of the DETRs: the backbone at a tenth of the rate, gradients of norm 0.1 at most.

The backbone's norms and position tables do not decay, as in adamw.py; the DETRs' authors decay
them like the rest, by 1e-4. The longest key found in a name decides alone, so the keys for them
are longer than "backbone" and state the rate too.
"""

_slow = dict(lr_mult=0.1)
_slow_undecayed = dict(lr_mult=0.1, decay_mult=0.0)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            "backbone": _slow,
            "absolute_pos_embed": _slow_undecayed,
            "relative_position_bias_table": _slow_undecayed,
            "patch_embed.norm": _slow_undecayed,
            "downsample.norm": _slow_undecayed,
            # of the blocks, and of the maps returned
            **{f"norm{i}.{kind}": _slow_undecayed for i in range(4) for kind in ("weight", "bias")},
        }
    ),
)

del _slow, _slow_undecayed  # what a config leaves defined becomes a key of it
