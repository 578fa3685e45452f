"""What importing us changes in a process that uses stock mmdet and mmseg: the list of `install`."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

# Prints all that other packages look things up in, and which of their modules are loaded.
LOOK = """
import importlib, inspect, json, sys, warnings
import swin_dense  # without it, mmcv lacks its ops
{first}
for name in {modules}:
    importlib.import_module(name)
import mmengine.registry, mmengine.fileio.backends as backends
from mmengine.fileio.backends import registry_utils
from mmengine.runner import checkpoint
from mmcv.ops import multi_scale_deform_attn

def name(thing):
    inner = getattr(thing, "__qualname__", None)
    return f"{{thing.__module__}}.{{inner}}" if inner else repr(thing)[:99]

def plain(table):
    return {{str(key): name(thing) for key, thing in table.items()}}

found = {{}}
stack = [r for r in vars(mmengine.registry).values() if isinstance(r, mmengine.registry.Registry)]
while stack:
    registry = stack.pop()
    if registry.scope != "swin_dense":
        found[f"registry {{registry.scope}} {{registry.name}}"] = plain(registry.module_dict)
        stack += registry.children.values()
own = {{k: v for k, v in vars(checkpoint).items() if not k.startswith("__")}}
found["mmengine.runner.checkpoint"] = plain(own)
found["schemes"] = plain(checkpoint.CheckpointLoader._schemes)
found["back ends"] = plain(registry_utils.backends)
found["prefixes"] = plain(registry_utils.prefix_to_backends)
found["filters"] = {{repr(row): "" for row in warnings.filters}}
found["finders"] = {{str(i): name(type(f)) for i, f in enumerate(sys.meta_path)}}
found["attention"] = plain({{
    k: v for k, v in vars(multi_scale_deform_attn).items() if not k.startswith("__")
}})
theirs = [m for m in sys.modules if m.split(".")[0] in ("mmcv", "mmdet", "mmseg", "mmengine")]
print("FOUND" + json.dumps([found, sorted(theirs)]))
"""


def looked(first, modules):
    program = LOOK.format(first=first, modules=modules)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND")[2])


@pytest.fixture(scope="module")
def both():
    """Without us and with us, the same modules of theirs loaded."""
    ours, modules = looked("import swin_dense.openmmlab", [])
    modules = [name for name in modules if name != "mmcv._ext"]
    stock, theirs = looked("", modules)
    assert set(modules) <= set(theirs)
    return stock, ours


def changed(stock, ours):
    names = stock.keys() | ours.keys()
    return {name for name in names if stock.get(name) != ours.get(name)}


def test_nothing_changes_but_what_install_lists(both):
    stock, ours = both
    found = {part: changed(stock.get(part, {}), ours.get(part, {})) for part in stock | ours}
    found = {part: names for part, names in found.items() if names}
    attention = found.pop("attention", set())
    assert attention <= {"IS_CUDA_AVAILABLE", "multi_scale_deformable_attn_pytorch", "published"}
    assert found.pop("schemes") == {"hf://", *stock["schemes"]}
    assert found == {"registry mmengine weight initializer": {"Pretrained"}}


def test_all_of_mmengine_was_looked_at(both):
    """Else the test above proves nothing."""
    stock, _ = both
    scopes = {part.split()[1] for part in stock if part.startswith("registry ")}
    assert scopes >= {"mmengine", "mmdet", "mmseg"}
    assert sum(len(names) for part, names in stock.items() if part.startswith("registry")) > 800
    assert stock["registry mmdet model"]["MaskRCNN"].startswith("mmdet.models.detectors")
    assert {"local", "http"} <= stock["back ends"].keys()
    assert len(stock["mmengine.runner.checkpoint"]) > 40
    assert stock["filters"]


def test_mmdet_before_us_is_refused():
    """It looked for mmcv's ops before they could be found, and put functions that fail there."""
    program = "import mmdet.structures\nimport swin_dense.openmmlab\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    if done.returncode == 0:
        pytest.skip("this mmcv has its own compiled ops")
    assert "mmdet was imported before swin_dense" in done.stderr
    assert "Write `import swin_dense` above it" in done.stderr
