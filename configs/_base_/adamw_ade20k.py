"""AdamW as in adamw.py, with the numbers for ADE20K: 6e-5 and 0.01 (arXiv 2103.14030, A2.3)."""

_base_ = "adamw.py"

optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
