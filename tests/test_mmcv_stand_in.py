"""Importing the package is cheap, and enough for mmcv to find its ops."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from swin_dense import mmcv_stand_in

LOOK = """
import json, sys
before = set(sys.modules)
import swin_dense
new = sorted({name.split(".")[0] for name in set(sys.modules) - before})
last = type(sys.meta_path[-1]).__module__
import importlib.util
other = importlib.util.find_spec("mmcv_no_such_package")
print(json.dumps([new, last, other]))
"""


def test_importing_us_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, cwd=ROOT)
    new, last, other = json.loads(done.stdout)
    assert "swin_dense" in new
    assert not {"torch", "numpy", "mmengine", "mmcv"} & set(new)
    assert last == "swin_dense.mmcv_stand_in"  # asked last, so that a compiled mmcv wins
    assert other is None


@pytest.mark.parametrize("first", ["mmdet.structures", "mmdet.models", "mmseg.models"])
def test_what_looked_for_ops_too_early_is_named(monkeypatch, first):
    for name in [n for n in sys.modules if n.split(".")[0] in ("mmcv", "mmdet", "mmseg")]:
        monkeypatch.delitem(sys.modules, name)
    assert mmcv_stand_in._looked_in_vain() == []
    mmcv_stand_in.require_in_time()
    monkeypatch.setitem(sys.modules, first, sys)
    mmcv_stand_in.require_in_time()  # it came after us
    monkeypatch.setattr(mmcv_stand_in, "_EARLY", mmcv_stand_in._looked_in_vain())
    with pytest.raises(mmcv_stand_in.InputError, match=rf"{first[:5]} was imported before"):
        mmcv_stand_in.require_in_time()
    monkeypatch.setitem(sys.modules, "mmcv.ops", sys)  # it found them: a compiled mmcv
    assert mmcv_stand_in._looked_in_vain() == []
