"""The only room that imports mmcv, mmdet or mmseg.

Importing it registers what configs name under "swin_dense.", and calls `install`, whose docstring
lists all that changes in other packages.
"""

import contextlib
import importlib
import io
import warnings

from swin_dense import mmcv_stand_in

mmcv_stand_in.require_in_time()

# Imported here once, quietly: they print and warn about optional packages nobody asked for.
with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    before = list(warnings.filters)
    for package in ("mmdet", "mmseg"):
        for room in ("datasets", "evaluation", "models"):
            importlib.import_module(f"{package}.{room}")
    added = [row for row in warnings.filters if row not in before]
for action, message, category, module, line in reversed(added):  # as if imported without us
    texts = [getattr(text, "pattern", "") for text in (message, module)]
    warnings.filterwarnings(action, texts[0], category, texts[1], line)  # type: ignore[arg-type]

# What registers itself in our registries does so now.
for name in (
    "models.bifpn",
    "models.simple_feature_pyramid",
    "models.float32",
    "models.global_attention",
    "models.panoptic_fusion",
    "models.reppoints_v2",
    "data.datasets",
    "data.metrics",
    "data.panoptic_metric",
    "data.transforms",
    "engine.amp",
    "engine.averaging",
    "engine.curve",
    "engine.early_stop",
    "engine.hooks",
    "engine.layer_decay",
    "engine.runner",
):
    importlib.import_module(f"{__name__}.{name}")

from swin_dense.openmmlab.install import install  # noqa: E402  (needs the modules above)

install()
