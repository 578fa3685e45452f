"""One file per architecture: an image to a tuple of maps, channels and strides announced.

Every file and folder here is imported: what it registers is found without a list.
"""

import importlib
import pkgutil

from swin_dense.registry import MODELS

for _found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_found.name}")

# The registered classes by their names: `from swin_dense.backbones import Swin`.
__all__ = sorted(
    name for name, kind in MODELS.module_dict.items() if kind.__module__.startswith(f"{__name__}.")
)
globals().update({name: MODELS.module_dict[name] for name in __all__})
