"""AdamW as in adamw.py, with the numbers of Swin V2 for ADE20K (arXiv 2111.09883, A1.2).

The rate falls by 0.95 from layer to layer towards the image.
"""

_base_ = "adamw.py"

optim_wrapper = dict(optimizer=dict(lr=4e-5), paramwise_cfg=dict(layer_decay=0.95))
