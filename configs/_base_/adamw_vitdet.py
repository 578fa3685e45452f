"""AdamW as in adamw.py, with the numbers of ViTDet: 1e-4 and 0.1 for batches of 64.

(arXiv 2203.16527, appendix A.2; detectron2, projects/ViTDet.) Left open: layer_decay.
"""

_base_ = "adamw.py"

optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
auto_scale_lr = dict(base_batch_size=64)
