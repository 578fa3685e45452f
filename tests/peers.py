"""Other projects to compare with that need torchvision."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from swin_dense.benchmarks.peers import name_torchvision_ops

# Not among the other packages: a torchvision that does not import ends every run of mmengine,
# which asks for its version.
FOLDER = Path(sys.prefix) / "peers"


def peer(name: str) -> ModuleType:
    """Import another project's module; the test is skipped where it is not installed.

    The folder is on the path for as long as that takes: processes that a later test starts do not
    see it.
    """
    root = name.partition(".")[0]
    sys.path.append(str(FOLDER))
    # Torch does other things where it finds Triton, which lies there for tests/test_triton.py.
    hidden = sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
    try:
        if importlib.util.find_spec(root) is None:
            pytest.skip(f"{root} is not installed")
        if importlib.util.find_spec("torchvision") is not None:
            name_torchvision_ops()
            importlib.import_module("torchvision")  # others look for it later, and then it is there
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        if hidden is None:
            del sys.modules["triton"]
