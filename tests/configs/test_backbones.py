"""Every head takes any registered backbone, by the channels it announces or shows."""

import functools
import itertools
import json
import runpy

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS

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


# Their necks make a pyramid of maps of one stride, which a plain ViT alone gives.
OF_PLAIN_VITS = ("vitdet", "vitdet_cascade", "upernet_vit")
HEADS = [
    path
    for path in sorted((ROOT / "configs/_base_").glob("*.py"))
    if is_a_head(path) and path.stem not in OF_PLAIN_VITS
]


NAMES = list(BACKBONES)


@functools.cache
def widths(stated):
    """Channels of the maps that a backbone, stated as JSON, really returns."""
    backbone = MODELS.build(json.loads(stated))
    with torch.no_grad():
        return [x.shape[1] for x in backbone(torch.randn(1, 3, 64, 96))]


def load(name, head, folder):
    """The config of a head over a backbone that is stated by itself."""
    leaf = folder / f"{name}.py"
    leaf.write_text(f"_base_ = [{str(head)!r}]\nmodel = dict(backbone={stated(name, head)!r})\n")
    assert set(runpy.run_path(str(leaf))["model"]) == {"backbone"}
    return configs.load(leaf)


def differences(one, other, key=""):
    """(key, value here, value there) of all single values in which two trees differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() | other.keys():
            yield from differences(one.get(name), other.get(name), f"{key}.{name}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for place, pair in enumerate(itertools.zip_longest(one, other)):
            yield from differences(*pair, f"{key}.{place}")
    elif one != other:
        yield key, one, other


@pytest.mark.parametrize("head", HEADS, ids=lambda path: path.stem)
def test_a_head_takes_any(head, tmp_path):
    """It computes over one of them, and over the others it differs in their channels alone."""
    first, *others = NAMES[HEADS.index(head) % 4 :] + NAMES[: HEADS.index(head) % 4]
    counted = load(first, head, tmp_path)
    found = complexity.count(counted, (224, 320))
    assert found.parameters > 1e6
    assert found.flops > 1e8
    here = widths(json.dumps(counted.model.pop("backbone")))
    for name in others:
        config = load(name, head, tmp_path)
        there = widths(json.dumps(config.model.pop("backbone")))
        pairs = set(zip(here, there, strict=True))
        found = list(differences(counted.model, config.model))
        assert found
        assert [d for d in found if "in_channels" not in d[0] or d[1:] not in pairs] == []
