"""ConvNeXt against the authors' outputs and transformers' implementation."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, assert_gradients_close, gradients, randomised, weighted_sum
from peers import peer
from safetensors.torch import load_file
from torch.nn.functional import layer_norm

from swin_dense.backbones import ConvNeXt, Swin
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export, known

GOLDEN = SHARED / "golden" / "convnext.safetensors"
ROUNDING = 3e-6  # of the golden outputs, as stated beside them
SMALL = {"depths": (2, 1, 4, 1), "dims": (10, 14, 22, 26)}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestConvNeXt(Contract):
    kind = ConvNeXt
    # Of the authors' README, with a classifier of 1000 classes; they round to millions.
    parameters: ClassVar = dict(tiny=28.6, small=50, base=89, large=198, xlarge=350)
    classes = 1000
    agree = 0.006


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
def test_golden_outputs_and_gradients() -> None:
    golden = load_file(GOLDEN)
    model = ConvNeXt(depths=(2, 1, 2, 1), dims=(16, 24, 32, 40), drop_path_rate=0.0).eval()
    model.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * ROUNDING, rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (53, 75), (32, 33)])
def test_same_as_transformers(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(
        depths=list(SMALL["depths"]),
        hidden_sizes=list(SMALL["dims"]),
        layer_norm_eps=1e-6,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    theirs = randomised(transformers.ConvNextBackbone(config)).eval()
    ours = ConvNeXt(**SMALL).eval()
    found = convert(theirs.state_dict())
    assert (found.architecture, found.whole) == ("ConvNeXt", False)
    ours.load_state_dict(found.state)
    image = torch.randn(2, 3, *size, requires_grad=True)
    maps, found = theirs(image).feature_maps, ours(image)
    for mine, yours in zip(found, maps, strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
    mine, yours = (torch.autograd.grad(weighted_sum(m), image)[0] for m in (found, maps))
    assert (mine - yours).abs().max() <= 1e-3 * yours.abs().max()


# --- Weights of others ---------------------------------------------------------------------------


def a_classifier(classes: int = 7) -> tuple[ConvNeXt, dict[str, torch.Tensor]]:
    """A model of ours and what the authors' classification code would write of it."""
    model = randomised(ConvNeXt(**SMALL))
    state = {n: t for n, t in model.state_dict().items() if not n.startswith("norm")}
    state |= {f"norm.{end}": model.state_dict()[f"norm3.{end}"] for end in ("weight", "bias")}
    return model, state | {"head.weight": torch.ones(classes, 26), "head.bias": torch.ones(classes)}


def test_the_authors_classification_weights() -> None:
    model, state = a_classifier()
    found = convert({"module." + name: tensor for name, tensor in state.items()})
    assert found.layout == "official ConvNeXt classification"
    assert found.dropped.keys() == {"module.head.weight", "module.head.bias"}
    assert all(torch.equal(tensor, model.state_dict()[n]) for n, tensor in found.state.items())
    assert len(found.state) == len(model.state_dict()) - 6


LAYOUTS = [name for name in known() if "ConvNeXt" in name and "V2" not in name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_there_and_back(layout: str) -> None:
    model = randomised(ConvNeXt(**SMALL))
    kept = {"classification": 3, "backbone": 0, "features only": 4}
    first = next((n for word, n in kept.items() if word in layout), 3)
    state = {
        n: t
        for n, t in model.state_dict().items()
        if not n.startswith("norm") or int(n[4]) >= first
    }
    theirs = export(state, layout)
    assert len(theirs) == len(state)
    found = convert(theirs)
    assert found.architecture == "ConvNeXt"
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())


def timm_features() -> torch.nn.Module:
    timm = peer("timm")
    sizes = {"depths": SMALL["depths"], "dims": SMALL["dims"], "conv_mlp": False}
    return timm.create_model("convnext_tiny", features_only=True, **sizes)


def torchvision_features() -> torch.nn.Module:
    models = peer("torchvision.models.convnext")
    widths = (*SMALL["dims"], None)
    settings = [
        models.CNBlockConfig(width, following, depth)
        for width, following, depth in zip(SMALL["dims"], widths[1:], SMALL["depths"], strict=True)
    ]
    return models.ConvNeXt(settings, num_classes=7)


def maps_of(model: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    if not hasattr(model, "features"):
        return model(image)
    maps = []
    for number, part in enumerate(model.features):  # stem or downsampling, then a stage
        image = part(image)
        maps += [image] if number % 2 else []
    return maps


@pytest.mark.parametrize("build", [timm_features, torchvision_features])
def test_same_maps_as(build: Callable[[], torch.nn.Module]) -> None:
    """Of the weights of their own models; ours norms a map before it is given out."""
    theirs = randomised(build()).eval()
    found = convert(theirs.state_dict())
    ours = ConvNeXt(**SMALL).eval()
    missing, unexpected = ours.load_state_dict(
        {n: t for n, t in found.state.items() if not n.startswith("norm")}, strict=False
    )
    assert len(missing) == 8
    assert not unexpected
    image = torch.randn(2, 3, 75, 96)
    for mine, yours in zip(ours(image), maps_of(theirs, image), strict=True):
        normed = layer_norm(yours.movedim(1, -1), yours.shape[1:2], eps=1e-6).movedim(-1, 1)
        torch.testing.assert_close(mine, normed, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_of_a_file_is_refused(layout: str) -> None:
    state = randomised(ConvNeXt(**SMALL)).state_dict()
    if "backbone" not in layout:
        state = {n: t for n, t in state.items() if not n.startswith("norm")}
    theirs = export(state, layout)
    half = dict(list(theirs.items())[::2])
    with pytest.raises(ValueError, match=r"no whole backbone .* ConvNeXt.*is missing"):
        convert(half)


def test_a_whole_detector_of_the_authors() -> None:
    model, _ = a_classifier()
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state["roi_head.bbox_head.fc_cls.weight"] = torch.ones(3, 3)
    found = convert(state)
    assert found.whole
    assert found.state.keys() == state.keys()


def test_another_architecture_is_named(tmp_path: Path) -> None:
    """A Swin's file laid into a ConvNeXt, and the other way round."""
    swin, convnext = Swin("nano"), ConvNeXt("nano")
    for model, other, its in ((convnext, swin, "Swin V1"), (swin, convnext, "ConvNeXt")):
        torch.save(other.state_dict(), tmp_path / "w.pth")
        _, account = fitting.fit(
            model.state_dict(), files.read(tmp_path / "w.pth"), part="backbone"
        )
        with pytest.raises(ValueError, match=rf"holds weights of {its} .*, but the backbone is"):
            account.require(0.95, "Take another file.")


# --- Layers, sizes, errors -----------------------------------------------------------------------

# github.com/facebookresearch/ConvNeXt, layer_decay_optimizer_constructor.py.
LAYERS = {
    "tiny": {"stages.2.0.gamma": 3, "stages.2.8.gamma": 5, "stages.3.0.gamma": 6},
    "small": {"stages.2.0.gamma": 3, "stages.2.26.gamma": 11, "stages.3.2.gamma": 12},
}


@pytest.mark.parametrize("arch", LAYERS)
def test_layers_are_counted_as_the_authors_do(arch: str) -> None:
    with torch.device("meta"):
        model = ConvNeXt(arch)
    last = {"tiny": 6, "small": 12}[arch]
    expected = {
        "downsample_layers.0.0.weight": 0,
        "stages.0.2.gamma": 1,
        "downsample_layers.1.1.weight": 2,
        "stages.1.0.gamma": 2,
        "downsample_layers.2.0.bias": 3,
        "downsample_layers.3.1.weight": last,
        "norm0.weight": last + 1,
        "norm3.bias": last + 1,
        **LAYERS[arch],
    }
    assert model.depth == last
    assert {name: model.depth_of(name) for name in expected} == expected


def test_maps_are_rounded_down() -> None:
    maps = ConvNeXt(**SMALL).eval()(torch.randn(1, 3, 67, 85))
    assert [m.shape[2:] for m in maps] == [(16, 21), (8, 10), (4, 5), (2, 2)]


def test_without_layer_scale() -> None:
    model = ConvNeXt(**SMALL, layer_scale_init_value=0.0)
    assert not [name for name, _ in model.named_parameters() if "gamma" in name]
    assert all(m.isfinite().all() for m in model(torch.randn(1, 3, 37, 50)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depths": (2, 2)}, r"depths \(2, 2\) and dims \(96, 192, 384, 768\)\. Give both"),
        ({"dims": (8, 8, 0, 8)}, r"at least 1; got depths .* dims \(8, 8, 0, 8\)"),
        ({"layer_scale_init_value": -1.0}, r"a factor from 0 \(none\); got -1\.0"),
    ],
)
def test_its_own_arguments_are_checked(changes: dict, text: str) -> None:
    with pytest.raises(ValueError, match=f"^ConvNeXt: .*{text}"):
        ConvNeXt(**changes)
