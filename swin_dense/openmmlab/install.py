"""Everything that this package replaces in others, in one function."""

import importlib

from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner.checkpoint import CheckpointLoader

from swin_dense import mmcv_stand_in
from swin_dense.mmcv_ops import deform
from swin_dense.openmmlab.engine import loaders, weights


def install() -> None:
    """Replace what mmcv lacks and what mmengine reads unsafely; a second call changes nothing.

    Importing `swin_dense.openmmlab` calls it. This is the whole list:

    * `mmcv._ext`, the compiled part of mmcv, where mmcv was installed without it: our ops. It is
      `import swin_dense` that has it found, see swin_dense/mmcv_stand_in.py.
    * `mmcv.ops.multi_scale_deform_attn`, only where that is so: `IS_CUDA_AVAILABLE` is False and
      `multi_scale_deformable_attn_pytorch` is our op, so that deformable attention calls it on
      every device and in every dtype; `published` is mmcv's function of before.
    * `CheckpointLoader` of mmengine: all its schemes, and hf://, read files by our reader, which
      never unpickles; mmengine falls back to unpickling. Files that name their classes have them
      where mmdet and mmseg look for them (`meta.dataset_meta`).
    * `init_cfg=dict(type="Pretrained", ...)` of mmengine: refuses weights that do not fit and
      says what became of each; mmengine loads what happens to match.
    """
    _replace_attention()
    for prefix, loader in loaders.SCHEMES.items():
        CheckpointLoader.register_scheme(prefix, loader, force=True)
    WEIGHT_INITIALIZERS.register_module("Pretrained", force=True, module=weights.Pretrained)


def _replace_attention() -> None:
    """Have mmcv's MultiScaleDeformableAttention call our op on every device and in every dtype.

    It calls a compiled op on CUDA, for which it rounds the locations to the dtype of the maps and
    which knows no bfloat16, and else a function of its own. Now it always calls that function, and
    that is ours. Nothing changes where mmcv has its own compiled ops.
    """
    if not mmcv_stand_in.stands_in():
        return
    names = vars(importlib.import_module("mmcv.ops.multi_scale_deform_attn"))
    names["IS_CUDA_AVAILABLE"] = False
    names.setdefault("published", names["multi_scale_deformable_attn_pytorch"])
    names["multi_scale_deformable_attn_pytorch"] = deform.multi_scale_deformable_attn
