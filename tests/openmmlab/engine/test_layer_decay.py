"""Rates and decays of every parameter against rules written out by hand."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.backbones import swin, swin_v2
from swin_dense.errors import InputError

LR, DECAY = 0.5, 0.25
SIZES = dict(embed_dim=8, depths=(1, 2, 3, 2), num_heads=(1, 2, 4, 8), ape=True)


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5))


def groups(model, **options):
    settings = dict(
        type="OptimWrapper",
        constructor="swin_dense.LayerDecay",
        optimizer=dict(type="AdamW", lr=LR, weight_decay=DECAY),
    )
    if options:
        settings["paramwise_cfg"] = options
    return build_optim_wrapper(model, settings).optimizer.param_groups


def rules(model, **options):
    """Name -> (rate, decay)."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in groups(model, **options)
        for p in group["params"]
    }
    assert found.keys() == set(names.values())
    return found


@pytest.fixture(params=[swin.Swin, swin_v2.SwinV2], ids=lambda kind: kind.__name__)
def model(request):
    return Detector(request.param(**SIZES))


def test_what_the_backbone_exempts_does_not_decay(model):
    found = rules(model)
    words = ("norm", "bias", "absolute_pos_embed", "cpb_mlp", "logit_scale")
    free = {n for n in found if n.startswith("backbone.") and any(w in n for w in words)}
    assert {n: found[n] for n in free} == dict.fromkeys(free, (LR, 0.0))
    rest = found.keys() - free
    assert {n: found[n] for n in rest} == dict.fromkeys(rest, (LR, DECAY))
    assert {"head.0.bias", "head.1.weight", "backbone.patch_embed.proj.weight"} < rest


def test_rates_fall_towards_the_image(model):
    """SimMIM's layers for depths 1, 2, 3, 2: ids 0 to 9, the last for what is behind the blocks."""
    found = rules(model, layer_decay=0.5)
    depth_of = {
        "absolute_pos_embed": 0,
        "patch_embed.proj.weight": 0,
        "patch_embed.norm.bias": 0,
        "layers.0.blocks.0.attn.qkv.weight": 1,
        "layers.0.downsample.reduction.weight": 1,
        "layers.1.blocks.0.norm1.weight": 2,
        "layers.1.blocks.1.mlp.fc1.bias": 3,
        "layers.1.downsample.norm.weight": 3,
        "layers.2.blocks.2.mlp.fc2.weight": 6,
        "layers.2.downsample.reduction.weight": 6,
        "layers.3.blocks.0.attn.proj.weight": 7,
        "layers.3.blocks.1.attn.proj.bias": 8,
        "norm0.weight": 9,
        "norm3.bias": 9,
    }
    for name, depth in depth_of.items():
        assert found[f"backbone.{name}"][0] == LR * 0.5 ** (9 - depth), name
    assert found["head.0.weight"] == (LR, DECAY)
    assert {rate for rate, _ in found.values()} == {LR * 0.5**k for k in range(10)}


def test_mmengine_s_options_hold_beneath(model):
    keys = dict(backbone=dict(lr_mult=0.1), head=dict(decay_mult=3.0))
    found = rules(model, layer_decay=0.5, custom_keys=keys)
    assert found["backbone.layers.3.blocks.1.mlp.fc1.weight"] == pytest.approx((LR / 20, DECAY))
    assert found["backbone.layers.3.blocks.1.mlp.fc1.bias"] == pytest.approx((LR / 20, 0))
    assert found["head.1.bias"] == (LR, 3 * DECAY)


def test_frozen_stages_have_no_rate():
    model = Detector(swin.Swin(**SIZES, frozen_stages=2))
    trained = {id(p) for g in groups(model, layer_decay=0.9) for p in g["params"]}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(trained) < len(list(model.parameters()))


def test_equal_options_share_a_group_and_the_full_rate_comes_first(model):
    assert [(g["lr"], g["weight_decay"]) for g in groups(model)] in (
        [(LR, DECAY), (LR, 0.0)],
        [(LR, 0.0), (LR, DECAY)],
    )
    rates = [g["lr"] for g in groups(model, layer_decay=0.7)]
    assert rates[0] == LR
    assert rates == sorted(rates, reverse=True)
    assert len(rates) <= 2 * 10


def test_a_step_moves_the_last_layers_most(model):
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = dict(
        type="OptimWrapper",
        constructor="swin_dense.LayerDecay",
        optimizer=dict(type="SGD", lr=LR),
        paramwise_cfg=dict(layer_decay=0.5),
    )
    wrapper = build_optim_wrapper(model, settings)
    sum(p.sum() for p in model.parameters()).backward()
    wrapper.step()
    moved = {name: (before[name] - p).mean().item() for name, p in model.named_parameters()}
    assert moved["backbone.norm3.weight"] == pytest.approx(LR, rel=1e-4)
    assert moved["backbone.patch_embed.proj.weight"] == pytest.approx(LR / 2**9, rel=1e-2)


def test_a_backbone_of_unknown_depth_trains_at_one_rate_only():
    model = Detector(nn.Conv2d(3, 8, 2))
    assert rules(model)["backbone.weight"] == (LR, DECAY)
    assert rules(model)["backbone.bias"] == (LR, 0.0)
    with pytest.raises(InputError, match=r"announces depth .*Conv2d does not"):
        rules(model, layer_decay=0.9)


def test_position_tables_of_other_backbones_do_not_decay():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
            self.pos_embed = nn.Parameter(torch.ones(1, 4, 8))
            self.weight = nn.Parameter(torch.ones(3, 2))

    found = rules(Detector(Other()))
    assert found["backbone.relative_position_bias_table"] == (LR, 0.0)
    assert found["backbone.pos_embed"] == (LR, 0.0)
    assert found["backbone.weight"] == (LR, DECAY)


def test_a_rate_must_be_stated(model):
    settings = dict(
        type="OptimWrapper",
        constructor="swin_dense.LayerDecay",
        optimizer=dict(type="AdamW"),
    )
    with pytest.raises(InputError, match=r"optimizer\.lr is the rate .* not stated"):
        build_optim_wrapper(model, settings)


@pytest.mark.parametrize("rate", [0, -0.5, 1.5, "0.9", None, True, float("nan")])
def test_a_wrong_factor_says_what_to_do(model, rate):
    with pytest.raises(InputError, match=r"layer_decay is a number above 0 .* Usual are"):
        groups(model, layer_decay=rate)


def test_a_model_without_a_backbone_has_mmengine_s_rules():
    head = nn.Sequential(nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5))
    found = rules(head, norm_decay_mult=0.0)
    assert found["1.bias"] == (LR, 0.0)
    assert found["0.bias"] == (LR, DECAY)
    with pytest.raises(InputError, match=r"announces depth .*Sequential does not"):
        rules(head, layer_decay=0.9)
