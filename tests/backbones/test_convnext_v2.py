"""ConvNeXt V2 against transformers' and timm's implementations."""

import re
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import assert_gradients_close, gradients, randomised, weighted_sum
from peers import peer
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from swin_dense.backbones import ConvNeXtV2
from swin_dense.backbones.convnext_v2 import GlobalResponseNorm
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export, known

SMALL = {"depths": (2, 1, 3, 1), "dims": (10, 14, 22, 26)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestConvNeXtV2(Contract):
    kind = ConvNeXtV2
    size = "atto"
    ours = ()
    # Of the authors' README, with a classifier of 1000 classes; they round to millions.
    parameters: ClassVar = dict(
        atto=3.7, femto=5.2, pico=9.1, nano=15.6, tiny=28.6, base=89, large=198, huge=660
    )
    classes = 1000
    agree = 0.008


def test_the_strength_of_channels_by_hand() -> None:
    """Of two places and two channels: strengths 5 and 12, shares of their mean 8.5."""
    norm = GlobalResponseNorm(2)
    with torch.no_grad():
        norm.gamma.copy_(torch.tensor([2.0, -1.0]))
        norm.beta.copy_(torch.tensor([0.25, 0.5]))
    x = torch.tensor([[[[3.0, 0.0], [4.0, 12.0]]]])
    first, second = 1 + 2 * 5 / 8.5, 1 - 12 / 8.5
    want = torch.tensor([[[[3 * first + 0.25, 0.5], [4 * first + 0.25, 12 * second + 0.5]]]])
    torch.testing.assert_close(norm(x), want, atol=1e-5, rtol=0)


def test_a_place_depends_on_the_whole_image() -> None:
    model = randomised(ConvNeXtV2(**SMALL, out_indices=(0,))).eval()
    image = torch.randn(1, 3, 200, 64)
    other = image.clone()
    other[:, :, -4:] += 3  # 140 pixels below the top; two blocks see 24 of them
    (here,), (there,) = model(image), model(other)
    assert (here - there)[:, :, :10].abs().max() > 1e-3


@pytest.mark.parametrize("size", [(64, 96), (53, 75), (32, 33)])
def test_same_as_transformers(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextV2Config(
        depths=list(SMALL["depths"]),
        hidden_sizes=list(SMALL["dims"]),
        layer_norm_eps=1e-6,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    theirs = randomised(transformers.ConvNextV2Backbone(config)).eval()
    ours = ConvNeXtV2(**SMALL).eval()
    found = convert(theirs.state_dict())
    assert (found.architecture, found.whole) == ("ConvNeXt V2", False)
    ours.load_state_dict(found.state)
    image = torch.randn(2, 3, *size, requires_grad=True)
    maps, found = theirs(image).feature_maps, ours(image)
    for mine, yours in zip(found, maps, strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
    mine, yours = (torch.autograd.grad(weighted_sum(m), image)[0] for m in (found, maps))
    assert (mine - yours).abs().max() <= 1e-3 * yours.abs().max()


def test_same_maps_and_gradients_as_timm() -> None:
    """Of the weights of its own model; ours norms a map before it is given out."""
    timm = peer("timm")
    sizes = {"depths": SMALL["depths"], "dims": SMALL["dims"], "conv_mlp": False}
    theirs = randomised(timm.create_model("convnextv2_tiny", features_only=True, **sizes)).eval()
    found = convert(theirs.state_dict())
    assert found.layout == "timm ConvNeXt V2, features only"
    ours = ConvNeXtV2(**SMALL).eval()
    missing, unexpected = ours.load_state_dict(found.state, strict=False)
    assert len(missing) == 8
    assert not unexpected
    image = torch.randn(2, 3, 75, 96)

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            maps = (m.movedim(1, -1) for m in self.inner(x))
            return tuple(layer_norm(m, m.shape[-1:], eps=1e-6).movedim(-1, 1) for m in maps)

    normed = Normed()
    for mine, yours in zip(ours(image), normed(image), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
    want = gradients(normed, image)
    got = gradients(ours, image)
    names = {f"inner.{n}": n for n in theirs.state_dict()}
    ours_of = convert({n: want[wrapped] for wrapped, n in names.items()}).state
    assert_gradients_close({n: got[n] for n in ours_of}, ours_of, rel=1e-3)


# --- Weights of others ---------------------------------------------------------------------------


def a_model() -> tuple[ConvNeXtV2, dict[str, Tensor]]:
    """A model of ours and its weights without the norms of maps."""
    model = randomised(ConvNeXtV2(**SMALL))
    return model, {n: t for n, t in model.state_dict().items() if not n.startswith("norm")}


def sparse(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names and shapes that pre-training with sparse convolutions writes, number by number."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = name.startswith("downsample_layers.0.")
        linear = re.search(r"pwconv\d|(\d\.norm|downsample_layers\.\d\.0)\.", name)
        if not plain and tensor.dim() == 4 and "grn" not in name:
            out, into, side, _ = tensor.shape
            kernel = torch.empty(side * side, into, out)
            for i in range(side):
                for j in range(side):
                    kernel[j * side + i] = tensor[:, :, i, j].T
            kernel = kernel[:, 0] if "dwconv" in name else kernel
            theirs[name.replace("weight", "kernel")] = kernel
        elif "grn" in name:
            theirs[name] = tensor.reshape(1, -1)
        elif not plain and linear:
            word = "linear" if "pwconv" in name else "ln"
            start, _, end = name.rpartition(".")
            theirs[f"{start}.{word}.{end}"] = tensor
        else:
            theirs[name] = tensor if plain else tensor[None]
    theirs = {f"encoder.{name}": tensor for name, tensor in theirs.items()}
    painter = ("mask_token", "proj.weight", "decoder.0.dwconv.weight", "pred.bias")
    return theirs | dict.fromkeys(painter, torch.ones(3))


def test_masked_pre_training_with_sparse_kernels() -> None:
    model, state = a_model()
    theirs = sparse(state)
    assert theirs["encoder.stages.1.0.dwconv.kernel"].shape == (49, 14)
    found = convert(theirs)
    assert found.layout == "official ConvNeXt V2 masked pre-training, sparse"
    assert set(found.dropped.values()) == {"paints hidden patches in pre-training"}
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())
    assert len(model.state_dict()) == len(state) + 8


def test_masked_pre_training_made_dense() -> None:
    _, state = a_model()
    found = convert(state)
    assert found.layout == "official ConvNeXt V2 pre-training"
    assert found.state.keys() == state.keys()


def test_sparse_kernels_of_volumes_are_refused() -> None:
    theirs = sparse(a_model()[1])
    theirs["encoder.stages.1.0.dwconv.kernel"] = torch.ones(343, 14)
    with pytest.raises(ValueError, match=r"stages\.1\.0\.dwconv\.weight is \(343, 14\) where"):
        convert(theirs)


def test_the_authors_classification_weights_and_their_licence(tmp_path: Path) -> None:
    model, state = a_model()
    state |= {f"norm.{end}": torch.ones(26) for end in ("weight", "bias")}
    state |= {"head.weight": torch.ones(7, 26), "head.bias": torch.ones(7)}
    for name, licence in (
        ("convnextv2_base_1k_224_ema.pt", "CC-BY-NC-4.0, as its authors publish it"),
        ("mine.pt", "CC-BY-NC-4.0, if it descends from weights its authors publish"),
    ):
        torch.save({"model": state}, tmp_path / name)
        read = files.read(tmp_path / name)
        _, account = fitting.fit(model.state_dict(), read, part="backbone")
        assert account.layout == "official ConvNeXt V2 classification"
        assert f"  licence: {licence}" in account.lines()
        assert f"  licence: {licence}" in account.comparison()
        assert account.record()["licence"] == licence
        assert account.share == 1
        assert set(account.unused.values()) == {"classification head"}


def test_own_weights_have_no_licence_of_others(tmp_path: Path) -> None:
    model, _ = a_model()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    _, account = fitting.fit(model.state_dict(), files.read(tmp_path / "w.pth"))
    assert account.licence == ""
    assert not [line for line in account.lines() if "licence" in line]


LAYOUTS = [name for name in known() if "ConvNeXt V2" in name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_there_and_back(layout: str) -> None:
    model = randomised(ConvNeXtV2(**SMALL))
    kept = {"classification": 3, "backbone": 0, "features only": 4, "pre-training": 4}
    first = next((n for word, n in kept.items() if word in layout), 3)
    state = {
        n: t
        for n, t in model.state_dict().items()
        if not n.startswith("norm") or int(n[4]) >= first
    }
    theirs = export(state, layout)
    assert len(theirs) == len(state)
    found = convert(theirs)
    assert (found.architecture, found.layout) == ("ConvNeXt V2", layout)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())


def test_layouts_of_timm_and_transformers_have_their_own_shapes() -> None:
    """What is exported loads into their classes, nothing missing but what ours lacks."""
    model, state = a_model()
    state |= {f"norm3.{end}": model.state_dict()[f"norm3.{end}"] for end in ("weight", "bias")}
    timm, transformers = peer("timm"), pytest.importorskip("transformers")
    sizes = {"depths": SMALL["depths"], "dims": SMALL["dims"], "conv_mlp": False}
    config = transformers.ConvNextV2Config(
        depths=list(SMALL["depths"]), hidden_sizes=list(SMALL["dims"])
    )
    for layout, theirs in (
        ("timm ConvNeXt V2", timm.create_model("convnextv2_tiny", num_classes=0, **sizes)),
        ("Hugging Face transformers ConvNeXt V2", transformers.ConvNextV2Model(config)),
    ):
        theirs.load_state_dict(export(state, layout))
        assert convert(theirs.state_dict()).layout == layout


def test_nothing_of_the_strength_of_channels_decays() -> None:
    words = ConvNeXtV2.no_weight_decay_keywords
    names = [n for n, _ in ConvNeXtV2(**SMALL).named_parameters()]
    assert {n.rpartition(".")[2] for n in names if any(w in n for w in words)} == {"gamma", "beta"}
