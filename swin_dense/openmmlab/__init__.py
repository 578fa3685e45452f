"""The only room that imports mmcv, mmdet or mmseg.

Importing it first puts our ops in place of a missing compiled `mmcv._ext`, so that everything
after it, ours and theirs, imports mmcv as if it had been built.
"""

import contextlib
import importlib
import io
import warnings

from swin_dense.mmcv_ops import ext

ext.install()

# Imported here once, quietly: they print and warn about optional packages nobody asked for.
with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for package in ("mmdet", "mmseg"):
        for room in ("datasets", "evaluation", "models"):
            importlib.import_module(f"{package}.{room}")
ext.replace_attention()
# mmseg says so at every start; the papers' recipes mean what it warns of.
warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
# mmdet and mmcv warn of what their own ATSSHead, DyHead and transformers do.
for theirs in ("DeprecationWarning: `num_anchors`", "In MMCV v1.4.4", "torch.meshgrid: in an"):
    warnings.filterwarnings("ignore", message=theirs)
# mmdet's mask heads copy a tensor (of HTC) as they would copy an array.
warnings.filterwarnings("ignore", message="To copy construct from a tensor", module=r"mmdet\.")

# What registers itself, or takes the place of something in mmengine, does so now.
for module in (
    "models.bifpn",
    "models.float32",
    "models.global_attention",
    "models.panoptic_fusion",
    "models.reppoints_v2",
    "data.datasets",
    "data.metrics",
    "data.panoptic_metric",
    "data.transforms",
    "engine.amp",
    "engine.hooks",
    "engine.layer_decay",
    "engine.runner",
    "engine.weights",
):
    importlib.import_module(f"{__name__}.{module}")
