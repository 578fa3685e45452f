"""SwinV2 against the authors' outputs, against the paper's formulas, and at every precision."""

import itertools
import math
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, SMALL, assert_gradients_close, gradients, small, weighted_sum
from torch import nn

from swin_dense.backbones import Swin, SwinV2, swin_v2
from swin_dense.backbones.swin_v2 import WindowAttention

pytestmark = pytest.mark.plain

GOLDEN = SHARED / "golden" / "v2_w8_256.safetensors"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- Is it the authors' Swin V2 ------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
def test_golden_outputs_and_gradients() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    golden = safetensors.load_file(GOLDEN)
    model = SwinV2(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16)).eval()
    weights = {k[2:]: v for k, v in golden.items() if k.startswith("p.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert {name.split(".")[0] for name in missing} == {"norm0", "norm1", "norm2", "norm3"}
    assert unexpected == ["norm.bias", "norm.weight"]  # the classifier's
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=1e-4, rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def bias_by_hand(attention: WindowAttention, window: int, pretrained: int) -> torch.Tensor:
    """The paper's equation 4 and its MLP, one pair of places at a time, in float64."""
    first, _, second = (module.double() for module in attention.cpb_mlp)
    places = list(itertools.product(range(window), range(window)))
    out = torch.zeros(attention.heads, len(places), len(places), dtype=torch.float64)
    for (i, query), (j, key) in itertools.product(enumerate(places), enumerate(places)):
        shares = [8 * (q - k) / (pretrained - 1) for q, k in zip(query, key, strict=True)]
        spaced = [math.copysign(math.log2(1 + abs(d)) / 3, d) for d in shares]
        hidden = first(torch.tensor(spaced, dtype=torch.float64)).relu()
        out[:, i, j] = 16 / (1 + (-second(hidden)).exp())
    return out


@pytest.mark.parametrize(
    ("window", "pretrained"), [(4, 0), (8, 4), (12, 4), (6, 0), (12, 6), (3, 8)]
)
def test_position_bias_for_a_window_of_another_size(window: int, pretrained: int) -> None:
    """The same weights in windows of two and three times the size, and in a smaller one."""
    attention = WindowAttention(6, 3, window, 0, True, pretrained)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    found = attention.position_bias(window)
    assert found.dtype == torch.float32
    expected = bias_by_hand(attention, window, pretrained or window)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("window", "other"), [(8, 16), (8, 24), (12, 24)])
def test_weights_move_to_larger_windows(window: int, other: int) -> None:
    """With the old window stated, a pair of places keeps its bias where both windows have it."""
    old, new = (WindowAttention(6, 3, w, 0, True, window) for w in (window, other))
    new.load_state_dict(old.state_dict())
    place = (torch.arange(window)[:, None] * other + torch.arange(window)).flatten()
    both = new.position_bias(other)[:, place][:, :, place]
    torch.testing.assert_close(both, old.position_bias(window))


def test_a_map_no_larger_than_a_window_is_one_window_without_a_shift() -> None:
    """Of the stages of an image of 64x64, windows of 16: 16, 8, 4 and 2 tokens on a side."""
    model = small(SwinV2, window_size=16).eval()
    image = torch.randn(2, 3, 64, 64)
    seen = []
    real = swin_v2.window_attention

    def look(qkv, bias, pad_qkv, window, shift, *rest, **named):
        seen.append((qkv.shape[1], window, shift, bias.shape[1]))
        return real(qkv, bias, pad_qkv, window, shift, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swin_v2, "window_attention", look)
        model(image)
        model(torch.randn(1, 3, 80, 64))
    assert seen[:8:2] == [(side, side, 0, side**2) for side in (16, 8, 4, 2)]
    assert seen[8] == (20, 16, 0, 256)  # 20x16 tokens: two windows, not shifted either
    assert seen[9] == seen[8]


def test_an_image_with_a_border_is_another_image() -> None:
    """Padding is looked at, as in version 1: stated in the docstring, so it has to be so."""
    model = small(SwinV2).eval()
    image = torch.randn(1, 3, 70, 90)
    whole = model(image)
    wider = model(nn.functional.pad(image, (0, 0, 0, 3)))
    assert whole[0].shape[2] == 18
    assert not torch.allclose(whole[0], wider[0][:, :, :18], atol=1e-3)


# --- Precision -----------------------------------------------------------------------------------


def test_logits_stay_in_float32() -> None:
    """At the largest scale, 100, logits of bfloat16 would be off by half a unit and more."""
    model = small(SwinV2, depths=(1,), num_heads=(3,), out_indices=(0,)).eval()
    attention = model.layers[0].blocks[0].attn
    with torch.no_grad():
        attention.logit_scale.fill_(9.0)
    seen = {}
    real = swin_v2.window_attention

    def look(qkv, bias, pad_qkv, window, shift, scale, cosine):
        out = real(qkv, bias, pad_qkv, window, shift, scale, cosine)
        wide = [x.detach().double() for x in (qkv, bias, pad_qkv)]
        truth = real(*wide, window, shift, scale.double(), cosine, back_end="plain")
        seen.update(qkv=qkv.dtype, scale=scale, bias=bias.dtype, out=out, truth=truth)
        return out

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(swin_v2, "window_attention", look)
        model(torch.randn(1, 3, 45, 37))
    assert seen["qkv"] == torch.bfloat16
    assert seen["scale"].dtype == seen["bias"] == torch.float32
    torch.testing.assert_close(seen["scale"], torch.full((3,), 100.0))
    size = seen["truth"].abs().max()
    assert (seen["out"].double() - seen["truth"]).abs().max() < 0.01 * size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [2.3, 9.0])
def test_training_steps_are_finite(scale: float, dtype: torch.dtype) -> None:
    model = small(SwinV2, drop_path_rate=0.2).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit_scale" in name:
                parameter.fill_(scale)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3):
        with torch.autocast("cpu", dtype):
            maps = model(torch.randn(2, 3, 61, 75))
        optimizer.zero_grad()
        weighted_sum([m.float() for m in maps]).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_scale_above_100_does_not_grow() -> None:
    model = small(SwinV2).train()
    attention = model.layers[0].blocks[0].attn
    with torch.no_grad():
        attention.logit_scale.fill_(5.0)
    found = gradients(model, torch.randn(1, 3, 37, 50))
    assert not found["layers.0.blocks.0.attn.logit_scale"].any()
    assert found["layers.0.blocks.1.attn.logit_scale"].all()


# --- Sizes ---------------------------------------------------------------------------------------


class TestSwinV2(Contract):
    kind = SwinV2
    # Of the paper's tables 5 and 7 and of the authors' model zoo, which round to millions.
    parameters: ClassVar = dict(tiny=28, small=50, base=88, large=197, huge=658, giant=3000)
    classes = 1000
    agree = 0.02


def test_sizes_may_be_changed() -> None:
    with torch.device("meta"):
        assert SwinV2("tiny", window_size=16).layers[0].blocks[0].attn.window == 16


def test_the_main_branch_of_the_large_sizes_is_normed() -> None:
    with torch.device("meta"):
        giant = SwinV2("giant")
    normed = [
        (stage, number)
        for stage, layer in enumerate(giant.layers)
        for number, block in enumerate(layer.blocks)
        if isinstance(block.norm3, nn.LayerNorm)
    ]
    assert normed == [(2, number) for number in (5, 11, 17, 23, 29, 35, 41)]
    model = small(SwinV2, depths=(2, 1), num_heads=(1, 2), out_indices=(0, 1), extra_norm_every=2)
    found = gradients(model.train(), torch.randn(1, 3, 37, 50))
    assert {n for n in found if "norm3" in n} == {
        "layers.0.blocks.1.norm3.weight", "layers.0.blocks.1.norm3.bias"
    }  # fmt: skip


def test_branches_start_at_nothing() -> None:
    for name, p in SwinV2(**SMALL).named_parameters():
        if ".norm1." in name or ".norm2." in name:
            assert not p.any(), name
        elif "norm" in name:
            assert p.eq(1 if name.endswith("weight") else 0).all(), name


def test_names_what_is_not_decayed() -> None:
    words = SwinV2.no_weight_decay_keywords
    model = small(SwinV2, ape=True)
    kept = [n for n, _ in model.named_parameters() if not any(w in n for w in words)]
    last = {".".join(n.split(".")[-2:]) for n in kept if "patch_embed" not in n}
    assert last == {
        "attn.q_bias", "attn.v_bias", "qkv.weight", "proj.weight", "proj.bias", "fc1.weight",
        "fc1.bias", "fc2.weight", "fc2.bias", "reduction.weight",
    }  # fmt: skip


def test_without_a_bias_of_the_projection() -> None:
    model = small(SwinV2, qkv_bias=False)
    assert not [n for n, _ in model.named_parameters() if "q_bias" in n or "v_bias" in n]
    assert all(m.isfinite().all() for m in model(torch.randn(1, 3, 37, 50)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pretrained_window_sizes": (8, 8)}, r"one number for each stage.*\(8, 8\) for 4 stages"),
        ({"pretrained_window_sizes": (8, 8, 8, -1)}, r"got \(8, 8, 8, -1\)"),
        ({"extra_norm_every": -1}, r"counts blocks; got -1"),
    ],
)
def test_its_own_arguments_are_checked(changes: dict, text: str) -> None:
    with pytest.raises(ValueError, match=f"^SwinV2: .*{text}"):
        SwinV2(**{**SMALL, **changes})


def test_it_is_no_swin() -> None:
    assert not issubclass(SwinV2, Swin)
    assert not set(SwinV2(**SMALL).state_dict()) <= set(Swin(**SMALL).state_dict())
