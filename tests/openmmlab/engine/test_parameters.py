"""What is frozen and how rates are spread, of models of a few parameters counted by hand."""

import pytest
import torch
from torch import nn

from swin_dense.openmmlab.engine import parameters


class Backbone(nn.Module):
    depth = 2

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Linear(2, 3)  # 9
        self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])  # 12 each
        self.norm = nn.LayerNorm(3)  # 6
        self.table = nn.Parameter(torch.ones(5))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.neck = nn.Linear(3, 4)  # 16
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(6))  # 5 each


@pytest.fixture
def model():
    return Model()


def test_nothing_is_frozen(model):
    assert parameters.frozen_line(model) is None


def test_whole_parts_are_named_and_single_parameters_where_the_rest_learns(model):
    for part in (model.backbone.patch_embed, model.backbone.layers[0]):
        part.requires_grad_(False)
    model.backbone.table.requires_grad_(False)
    model.neck.bias.requires_grad_(False)
    assert parameters.frozen_line(model) == (
        "frozen: backbone.table, backbone.patch_embed, neck.bias, backbone.layers.0 "
        "(0.0k of 0.1k parameters)"
    )
    model.backbone.requires_grad_(False)
    assert parameters.frozen_line(model).startswith("frozen: backbone, neck.bias (")
    model.requires_grad_(False)
    assert parameters.frozen_line(model).startswith("frozen: the whole model (0.1k of 0.1k")


def test_many_are_counted(model):
    for head in model.heads:
        head.bias.requires_grad_(False)
    line = parameters.frozen_line(model)
    assert "heads.0.bias, heads.1.bias, heads.2.bias, heads.3.bias and 2 more (" in line


def test_millions_and_thousands():
    model = nn.Sequential(nn.Linear(1000, 1200, bias=False), nn.Linear(1200, 10, bias=False))
    model[1].requires_grad_(False)
    assert parameters.frozen_line(model) == "frozen: 1 (12.0k of 1.2M parameters)"


def grouped(model, *rates):
    """Groups of (rate, parts); what has no part has the last rate."""
    groups = [{"lr": r, "params": [p for m in parts for p in m.parameters()]} for r, parts in rates]
    known = {id(p) for group in groups for p in group["params"]}
    groups[-1]["params"] += [p for p in model.parameters() if id(p) not in known]
    return groups


def test_one_rate_needs_no_line(model):
    assert parameters.rates_line(model, grouped(model, (0.1, [])), None) is None
    assert parameters.rates_line(model, [], None) is None


def test_the_ends_of_the_rates_are_named(model):
    bone = model.backbone
    groups = grouped(model, (2e-5, [bone.patch_embed]), (1e-4, [bone.layers]), (4e-4, []))
    start = "learning rate: 4e-4 at neck, heads, backbone.table, backbone.norm to 2e-5 at "
    assert parameters.rates_line(model, groups, {}) == f"{start}backbone.patch_embed"
    decayed = parameters.rates_line(model, groups, {"layer_decay": 0.5})
    assert decayed == f"{start}backbone.patch_embed (layer_decay 0.5, 4 layers)"


def test_what_is_frozen_does_not_hide_what_learns_beside_it(model):
    model.backbone.patch_embed.bias.requires_grad_(False)
    groups = [
        {"lr": 0.1, "params": [model.backbone.patch_embed.weight]},
        {"lr": 0.2, "params": list(model.neck.parameters())},
    ]
    line = parameters.rates_line(model, groups, None)
    assert line == "learning rate: 2e-1 at neck to 1e-1 at backbone"


@pytest.mark.parametrize(
    ("rate", "text"), [(1e-4, "1e-4"), (0.0000125, "1.25e-5"), (0.3, "3e-1"), (2.0, "2e0")]
)
def test_a_rate_in_short(rate, text):
    assert parameters.short(rate) == text
