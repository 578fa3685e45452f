"""Have `mmcv._ext` found where mmcv was installed without its compiled part.

`import swin_dense` is enough, before mmcv, mmdet or mmseg. The finder is the last that Python
asks, so that a compiled mmcv always wins. torch is imported when mmcv asks, not before.
"""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from swin_dense.errors import InputError

NAME = "mmcv._ext"
OURS = "swin_dense.mmcv_ops.ext"


class Finder:
    """Serve one module, under mmcv's name for it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == NAME else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to Python to make an empty module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put ours in the place of the empty one; both names are one module from now on."""
        sys.modules[NAME] = importlib.import_module(OURS)


def stands_in() -> bool:
    """Say whether the ops that mmcv has imported come from here."""
    return NAME in sys.modules and sys.modules[NAME] is sys.modules.get(OURS)


def _looked_in_vain() -> list[str]:
    """Return those of mmdet and mmseg that have looked for mmcv's ops and gone on without."""
    if "mmcv.ops" in sys.modules:  # found, or its import has failed by now
        return []
    parts = {"mmdet": ("mmdet.models", "mmdet.structures"), "mmseg": ("mmseg.models",)}
    return [name for name, those in parts.items() if not sys.modules.keys().isdisjoint(those)]


_EARLY = _looked_in_vain()  # before the finder below was there


def require_in_time() -> None:
    """Refuse to go on where mmdet or mmseg looked for mmcv's ops before they could be found.

    Raises:
        InputError: they have put functions that fail in the place of what they did not find.
    """
    if _EARLY:
        raise InputError(
            f"{_EARLY[0]} was imported before swin_dense, and this mmcv has no compiled ops: what "
            f"{_EARLY[0]} did not find then stays missing. Write `import swin_dense` above it; in "
            "a notebook, restart the kernel first."
        )


sys.meta_path.append(Finder())
