"""Every registered backbone keeps the contract, and each is asked whether it does."""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn

import swin_dense.backbones  # noqa: F401
from swin_dense.backbones.adapter import Adapter
from swin_dense.backbones.backbone import Backbone
from swin_dense.registry import MODELS

HERE = Path(__file__).parent


def asked() -> set[str]:
    """Names of the backbones that a class of this folder inherits the questions for."""
    found = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and (
                {"Contract", "AdapterContract"} & set(map(ast.unparse, node.bases))
            ):
                found |= {
                    ast.unparse(line.value)
                    for line in node.body
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "kind"
                }
    return found


def test_every_registered_backbone_is_asked() -> None:
    ours = {
        name
        for name, kind in MODELS.module_dict.items()
        if kind.__module__.startswith("swin_dense.backbones.")
    }
    assert ours == asked()
    assert {"Swin", "SwinV2"} <= ours
    assert all(issubclass(MODELS.get(name), Backbone) for name in ours)
    adapters = {name for name in ours if issubclass(MODELS.get(name), Adapter)}
    assert adapters == {"HuggingFace", "Timm"}  # sizes are other projects' to name
    assert all("nano" in MODELS.get(name).archs for name in ours - adapters)


class Half(Backbone):
    """The smallest backbone there can be: one layer, two stages."""

    def __init__(self, out_indices=(0, 1), frozen_stages=-1, drop_path_rate=0.0):
        super().__init__(
            stages=2,
            in_channels=3,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=False,
            init_cfg=None,
        )
        self.stem = nn.Conv2d(3, 2, 1)
        self.freeze()

    out_channels = (2, 2)
    out_strides = (1, 2)
    smallest_image = 2
    depth = 1

    def depth_of(self, name):
        return 0

    def frozen(self):
        if self.frozen_stages >= 0:
            yield self.stem

    def forward(self, image):
        self.check_image(image)
        x = self.stem(image)
        return x, x[..., ::2, ::2]


def test_the_base_checks_and_freezes_for_a_subclass() -> None:
    model = Half(frozen_stages=0).train()
    assert not model.stem.weight.requires_grad
    assert not model.stem.training
    assert model.training
    assert [m.shape for m in model(torch.zeros(1, 3, 4, 6))] == [(1, 2, 4, 6), (1, 2, 2, 3)]
    with pytest.raises(ValueError, match=r"^Half: an image of 1x6 pixels is too small"):
        model(torch.zeros(1, 3, 1, 6))
    with pytest.raises(ValueError, match=r"^Half: frozen_stages is -1 .* to 2 .* with n\."):
        Half(frozen_stages=3)


def test_drop_path_grows_linearly() -> None:
    assert Half(drop_path_rate=0.7).drop_path_rates(8) == pytest.approx([i / 10 for i in range(8)])


def test_a_backbone_that_says_nothing_of_itself_is_not_one() -> None:
    class Silent(Backbone):
        pass

    assert Silent.__abstractmethods__ >= {"out_channels", "out_strides", "depth", "frozen"}
