"""Every head takes any registered backbone, by the channels it announces or shows."""

import runpy

import pytest
from conftest import ROOT
from mmengine.config import Config

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.engine import complexity
from swin_dense.openmmlab.settings import config as configs

BACKBONES = {
    "ResNet": dict(type="mmdet.ResNet", depth=18),
    "PVT": dict(type="mmdet.PyramidVisionTransformer", num_layers=[1, 1, 1, 1]),
    "EfficientNet": dict(type="mmdet.EfficientNet", arch="b0"),
    "SwinV2": dict(type="swin_dense.SwinV2", arch="nano"),
}


def stated(name, head):
    """EfficientNet counts from the image on, where the first map of others is its third."""
    backbone = dict(BACKBONES[name])
    if name == "EfficientNet":
        of_others = (
            Config.fromfile(str(head)).model.get("backbone", {}).get("out_indices", range(4))
        )
        backbone["out_indices"] = [i + 2 for i in of_others]
    return backbone


def is_a_head(path):
    return "type" in Config.fromfile(str(path)).get("model", {})


HEADS = [path for path in sorted((ROOT / "configs/_base_").glob("*.py")) if is_a_head(path)]


@pytest.mark.parametrize("head", HEADS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_head_takes_it(head, name, tmp_path):
    leaf = tmp_path / "leaf.py"
    leaf.write_text(f"_base_ = [{str(head)!r}]\nmodel = dict(backbone={stated(name, head)!r})\n")
    assert set(runpy.run_path(str(leaf))["model"]) == {"backbone"}
    config = configs.load(leaf)
    found = complexity.count(config, (224, 320))
    assert found.parameters > 1e6
    assert found.flops > 1e8
