"""CSWin against the authors' outputs and a loop over places."""

import itertools
import math
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, assert_gradients_close, gradients, randomised
from safetensors.torch import load_file

from swin_dense.backbones import CSWin
from swin_dense.backbones.cswin import StripeAttention
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export

GOLDEN = SHARED / "golden" / "cswin.safetensors"
ROUNDING = 4e-6  # as stated beside the file


class TestCSWin(Contract):
    kind = CSWin
    # Of the authors' README, with a classifier of 1000 classes; they round to millions.
    parameters: ClassVar = dict(tiny=23, small=35, base=78, large=173)
    classes = 1000
    agree = 0.04  # the last size that rounds to 23 is 2 per cent off; tiny has 22.3


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
def test_golden_outputs_and_gradients() -> None:
    golden = load_file(GOLDEN)
    model = CSWin(
        dims=(12, 24, 24, 48),
        depths=(1, 2, 2, 1),
        num_heads=(2, 4, 4, 8),
        split_size=(1, 2, 3),
        mlp_ratio=2.0,
    ).eval()
    found = convert({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    assert found.layout == "official CSWin backbone"
    model.load_state_dict(found.state)
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * ROUNDING, rtol=0)
    got = gradients(model, golden["x"])
    image = got.pop("image")
    got = export(got, found.layout) | {"image": image}
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def looped(attention: StripeAttention, qkv: torch.Tensor) -> torch.Tensor:
    """Do what the attention does to an image (H, W, 3, C), one place and head at a time."""
    height, width, _, channels = qkv.shape
    rows, columns = attention.rows or height, attention.columns or width
    top, left = (-height % rows) // 2, (-width % columns) // 2
    weight, bias = attention.get_v.weight.double(), attention.get_v.bias.double()
    size, whole = channels // attention.heads, qkv.double()
    out = torch.zeros(height, width, channels, dtype=torch.float64)
    for y, x in itertools.product(range(height), range(width)):
        first = (y + top) // rows * rows - top, (x + left) // columns * columns - left
        spans = (range(f, f + n) for f, n in zip(first, (rows, columns), strict=True))
        stripe = list(itertools.product(*spans))
        inside = [(i, j) for i, j in stripe if 0 <= i < height and 0 <= j < width]
        for head in range(attention.heads):
            own = slice(head * size, (head + 1) * size)
            weights = [
                math.exp(whole[y, x, 0, own] @ whole[i, j, 1, own] / math.sqrt(size))
                for i, j in inside
            ]
            total = sum(weights) + len(stripe) - len(inside)
            for share, (i, j) in zip(weights, inside, strict=True):
                out[y, x, own] += share / total * whole[i, j, 2, own]
        for i, j in inside:
            if abs(i - y) <= 1 and abs(j - x) <= 1:
                out[y, x] += weight[:, 0, i - y + 1, j - x + 1] * whole[i, j, 2]
        out[y, x] += bias
    return out


@pytest.mark.parametrize(
    ("rows", "columns"), [(None, 1), (1, None), (None, 4), (3, None), (7, None), (None, None)]
)
def test_equals_a_loop_over_places(rows, columns) -> None:
    attention = randomised(StripeAttention(6, 2, rows, columns))
    qkv = torch.randn(2, 5, 9, 3, 12)[..., 6:]  # as the second half of the channels comes
    out = attention(qkv)
    for image in range(2):
        torch.testing.assert_close(out[image], looped(attention, qkv[image]).float())


def test_layers_are_counted_by_blocks() -> None:
    with torch.device("meta"):
        model = CSWin("tiny")
    expected = {
        "patch_embed.proj.weight": 0,
        "layers.0.blocks.0.attns.1.get_v.bias": 1,
        "layers.0.downsample.conv.weight": 1,
        "layers.2.blocks.20.qkv.weight": 24,
        "layers.3.blocks.0.mlp.fc2.bias": 25,
        "norm0.weight": 26,
    }
    assert model.depth == 25
    assert {name: model.depth_of(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depths": (2, 2)}, r"depths \(2, 2\) and num_heads .*Give all"),
        ({"depths": (1, 0, 1, 1)}, r"at least 1; got .*\(1, 0, 1, 1\)"),
        ({"num_heads": (1, 2, 4, 4)}, r"even before .* stage 0 has 16 channels and 1 heads"),
        ({"num_heads": (2, 6, 4, 4)}, r"stage 1 has 32 channels and 6 heads"),
        ({"num_heads": (2, 2, 4, 3)}, r"stage 3 has 128 channels and 3 heads"),
        ({"split_size": (1, 2, 7, 7)}, r"but the last, .*got \(1, 2, 7, 7\) for 4 stages"),
        ({"split_size": (1, 0, 7)}, r"a number from 1 .*got \(1, 0, 7\)"),
    ],
)
def test_its_own_arguments_are_checked(changes, text) -> None:
    with pytest.raises(ValueError, match=f"^CSWin: .*{text}"):
        CSWin("nano", **changes)


# --- Weights of the authors ----------------------------------------------------------------------


def authors_names(model: CSWin, norms: dict[int, str]) -> dict[str, torch.Tensor]:
    """Return the weights as the attributes of the authors' classes are called."""
    named = {}
    for part, number in (("proj", 0), ("norm", 2)):
        named[f"stage1_conv_embed.{number}"] = model.patch_embed.get_submodule(part)
    for stage, layer in enumerate(model.layers, start=1):
        for number, block in enumerate(layer.blocks):
            named |= {f"stage{stage}.{number}.{name}": m for name, m in block.named_modules()}
        for part in ("conv", "norm") if layer.downsample else ():
            named[f"merge{stage}.{part}"] = layer.downsample.get_submodule(part)
    named |= {theirs: model.get_submodule(f"norm{stage}") for stage, theirs in norms.items()}
    return {
        f"{name}.{end}": tensor
        for name, module in named.items()
        for end, tensor in module.named_parameters(recurse=False)
    }


def test_weights_of_segmentation() -> None:
    model = randomised(CSWin("nano"))
    state = model.state_dict()
    theirs = authors_names(model, {i: f"norm{i + 1}" for i in range(4)})
    assert len(theirs) == len(state)
    assert convert(theirs).layout == "official CSWin backbone"
    head = {"decode_head.conv_seg.weight": torch.ones(5, 4, 1, 1)}
    whole = convert({f"backbone.{name}": tensor for name, tensor in theirs.items()} | head)
    assert whole.state.keys() == {*(f"backbone.{name}" for name in state), *head}
    assert all(torch.equal(whole.state[f"backbone.{n}"], t) for n, t in state.items())


@pytest.mark.parametrize("classes", [1000, 21841])
def test_weights_of_classification(classes: int, tmp_path) -> None:
    """As they are published: an average of the weights alone, with a head."""
    model = randomised(CSWin("nano"))
    theirs = authors_names(model, {3: "norm"})
    theirs |= {"head.weight": torch.ones(classes, 128), "head.bias": torch.ones(classes)}
    torch.save({"state_dict_ema": theirs}, tmp_path / "cswin.pth")
    fresh = CSWin("nano")
    loaded, account = fitting.fit(
        fresh.state_dict(), files.read(tmp_path / "cswin.pth"), part="backbone"
    )
    assert account.layout.startswith("official CSWin classification, an average")
    kept = {n: t for n, t in model.state_dict().items() if n[:5] not in ("norm0", "norm1", "norm2")}
    assert loaded.keys() == kept.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in kept.items())


def test_our_names_are_read() -> None:
    state = randomised(CSWin("nano")).state_dict()
    assert convert(state).layout == "CSWin backbone in our names"
