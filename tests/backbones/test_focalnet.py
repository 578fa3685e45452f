"""FocalNet against the authors' outputs and transformers' implementation."""

from typing import Any, ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, assert_gradients_close, gradients, randomised, weighted_sum
from peers import peer
from safetensors.torch import load_file

from swin_dense.backbones import FocalNet
from swin_dense.backbones.focalnet_weights import LAYOUTS
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export

NORMS = ("norm3.", "norm0.", "norm1.", "norm2.")  # the ones that layouts lack come last
SMALL = {"embed_dim": 8, "depths": (1, 2, 1, 1), "drop_path_rate": 0.0}
GOLDEN = {  # file -> options of the model, rounding as stated beside the outputs
    "focalnet": (dict(focal_levels=2, focal_windows=9, mlp_ratio=2.0), 1e-5),
    "focalnet_fl4": (
        dict(
            focal_levels=4,
            focal_windows=3,
            mlp_ratio=1.0,
            conv_embed=True,
            stem_padding=2,
            post_norm=True,
            normalize_modulator=True,
        ),
        9e-6,
    ),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestFocalNet(Contract):
    kind = FocalNet
    # Of the authors' README: with a classifier of 1000 classes and kernels from 3 on.
    parameters: ClassVar = {}
    bfloat16 = 0.2  # the error grows by its products of query and context: 0.6 to 11 per cent

    def test_sizes_are_those_of_the_paper(self) -> None:
        for name, levels, millions in (
            ("tiny", 2, 28.4),
            ("tiny", 3, 28.6),
            ("small", 3, 50.3),
            ("base", 3, 88.7),
        ):
            with torch.device("meta"):
                model = FocalNet(name, focal_levels=levels, focal_windows=3)
            counted = sum(p.numel() for p in model.parameters()) + model.out_channels[-1] * 1000
            assert counted / 1e6 == pytest.approx(millions, rel=0.005), name

    def test_each_stage_has_its_first_kernel(self) -> None:
        model = FocalNet("nano", focal_windows=(11, 9, 5, 7))
        sides = [
            [layer[0].kernel_size[0] for layer in stage.blocks[0].modulation.focal_layers]
            for stage in model.layers
        ]
        assert sides == [[11, 13], [9, 11], [5, 7], [7, 9]]

    @pytest.mark.parametrize(
        ("arch", "changes", "scaled"),
        [
            ("large", {}, True),
            ("large", {"focal_levels": 3}, False),
            ("large", {"normalize_modulator": False}, False),
            ("xlarge", {}, False),
            ("huge", {"normalize_modulator": True}, True),
        ],
    )
    def test_sums_of_levels_are_divided_as_the_authors_state(self, arch, changes, scaled) -> None:
        with torch.device("meta"):
            model = FocalNet(arch, **changes)
        assert {stage.blocks[0].modulation.scaled for stage in model.layers} == {scaled}


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="set SWIN_DENSE_SHARED")
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_outputs_and_gradients(name: str) -> None:
    golden = load_file(SHARED / "golden" / f"{name}.safetensors")
    options, rounding = GOLDEN[name]
    model = FocalNet(**SMALL, **options, layer_scale_init_value=1e-4).eval()
    model.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * rounding, rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def _of_transformers(large: bool) -> Any:
    """Configure their model with the forms of the authors' large sizes, or without."""
    transformers = pytest.importorskip("transformers")
    config = transformers.FocalNetConfig(
        embed_dim=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[1, 2, 1, 1],
        focal_levels=[3] * 4,
        focal_windows=[3] * 4,
        use_conv_embed=large,
        use_post_layernorm=large,
        use_post_layernorm_in_modulation=large,
        use_layerscale=large,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config.hidden_sizes = [8, 16, 32, 64]  # its backbone adds a list to them
    return config


def _sizes(large: bool) -> dict[str, Any]:
    """Return the arguments of ours that mean the same."""
    return dict(
        **SMALL,
        focal_levels=3,
        focal_windows=3,
        conv_embed=large,
        stem_padding=2,
        post_norm=large,
        norm_in_modulation=large,
        layer_scale_init_value=float(large),
    )


@pytest.mark.parametrize("large", [False, True])
def test_same_as_transformers(large: bool) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = randomised(transformers.FocalNetBackbone(_of_transformers(large))).eval()
    ours = FocalNet(**_sizes(large)).eval()
    missing, unused = ours.load_state_dict(convert(theirs.state_dict()).state, strict=False)
    assert not unused
    assert {name.partition(".")[0] for name in missing} == {"norm0", "norm1", "norm2"}
    for stage in range(4):  # theirs norms no map
        ours.get_submodule(f"norm{stage}").register_forward_hook(lambda m, given, out: given[0])
    image = torch.randn(2, 3, 64, 96, requires_grad=True)
    # Theirs gives the maps after the downsampling of each stage.
    halves = [layer.downsample for layer in ours.layers[:-1]]
    maps, own = theirs(image).feature_maps, ours(image)
    mine = [
        half(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for half, m in zip(halves, own[:-1], strict=True)
    ]
    mine.append(own[-1])
    for a, b in zip(mine, maps, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    a, b = (torch.autograd.grad(weighted_sum(m), image)[0] for m in (mine, maps))
    assert (a - b).abs().max() <= 1e-3 * b.abs().max()


def _of_timm(large: bool, **more: Any) -> torch.nn.Module:
    """Build timm's model, whose maps are ours where no border of an image is padded."""
    peer("timm")
    from timm.models.focalnet import FocalNet as Theirs

    return Theirs(
        embed_dim=8,
        depths=[1, 2, 1, 1],
        focal_levels=[3] * 4,
        focal_windows=[3] * 4,
        use_overlap_down=large,
        use_post_norm=large,
        use_post_norm_in_modulation=large,
        layerscale_value=1.0 if large else None,
        **more,
    )


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_same_as_timm(large: bool, scaled: bool) -> None:
    theirs = randomised(_of_timm(large, normalize_modulator=scaled, num_classes=7)).eval()
    ours = FocalNet(**_sizes(large), normalize_modulator=scaled).eval()
    found = convert(theirs.state_dict())
    assert found.layout == ("timm FocalNet of large sizes" if large else "timm FocalNet")
    assert found.dropped.keys() == {"head.fc.weight", "head.fc.bias"}
    missing, unused = ours.load_state_dict(found.state, strict=False)
    assert not unused
    assert {name.partition(".")[0] for name in missing} == {"norm0", "norm1", "norm2"}
    image = torch.randn(2, 3, 64, 96)
    for stage in range(4):  # theirs norms no map but the last for its classifier
        ours.get_submodule(f"norm{stage}").register_forward_hook(lambda m, given, out: given[0])
    for a, b in zip(ours(image), theirs.forward_intermediates(image)[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "large"),
    [
        (x.name, large)
        for x in LAYOUTS
        for large in (False, True)
        if "timm" not in x.name or ("large" in x.name) == large
    ],
)
def test_every_layout_goes_there_and_back(layout: str, large: bool) -> None:
    state = randomised(FocalNet(**_sizes(large))).state_dict()
    lacks = 4 if "features only" in layout else 0 if "backbone" in layout else 3
    state = {n: t for n, t in state.items() if not n.startswith(tuple(NORMS[4 - lacks :]))}
    found = convert(export(state, layout))
    assert (found.layout, found.architecture) == (layout, "FocalNet")
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())


@pytest.mark.parametrize("large", [False, True])
def test_names_of_whole_models_elsewhere(large: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = _of_transformers(large)
    peer("timm")
    from timm.models._features import FeatureListNet

    for theirs, left in (
        (transformers.FocalNetForImageClassification(config), {"classifier"}),
        (transformers.FocalNetForMaskedImageModeling(config), {"decoder", "focalnet"}),
        (transformers.FocalNetModel(config, add_pooling_layer=False), set()),
        (FeatureListNet(_of_timm(large), (0, 1, 2, 3), flatten_sequential=True), set()),
    ):
        found = convert(theirs.state_dict())
        missing, unused = FocalNet(**_sizes(large)).load_state_dict(found.state, strict=False)
        assert not unused
        assert all(name.startswith("norm") for name in missing)
        assert {name.partition(".")[0] for name in found.dropped} == left


def test_dino_and_detectors_of_the_authors() -> None:
    """Their names are ours, behind what the detectors' code puts before a backbone."""
    model = randomised(FocalNet(**_sizes(True), out_indices=(1, 2, 3)))
    state = model.state_dict()
    head = {"transformer.level_embed": torch.ones(3), "class_embed.0.bias": torch.ones(3)}
    for before, beside, phrase in (
        ("backbone.0.", head, " in DINO's own code"),
        ("backbone.", {"neck.fpn_convs.0.conv.bias": torch.ones(3)}, " in a detector"),
    ):
        found = convert({before + n: t for n, t in state.items()} | beside)
        assert found.layout == "official FocalNet backbone" + phrase
        inner = {n.removeprefix("backbone."): t for n, t in found.state.items()}
        model.load_state_dict({n: t for n, t in inner.items() if n in state}, strict=True)


def test_small_kernels_of_classification_become_the_middle_of_large_ones(tmp_path) -> None:
    """The loaded model does what the file's does, and the ledger says what was changed."""
    small = randomised(FocalNet(**SMALL, focal_levels=2, focal_windows=3)).eval()
    large = FocalNet(**SMALL, focal_levels=2, focal_windows=9).eval()
    torch.save({"model": small.state_dict()}, tmp_path / "small.pth")
    checkpoint = files.read(tmp_path / "small.pth")
    loaded, account = fitting.fit(large.state_dict(), checkpoint)
    large.load_state_dict(loaded)
    assert {r.how for r in account.resized} == {
        "kernel 3x3 -> 9x9, zeros around it",
        "kernel 5x5 -> 11x11, zeros around it",
    }
    image = torch.randn(2, 3, 45, 61)
    for a, b in zip(large(image), small(image), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    # Another level: the gate of the whole map stays the last, that of the new level is 0.
    more = FocalNet(**SMALL, focal_levels=3, focal_windows=3)
    loaded, account = fitting.fit(more.state_dict(), checkpoint)
    name = "layers.0.blocks.0.modulation.f.weight"
    old, new = checkpoint.weights[name], loaded[name]
    assert torch.equal(new, torch.cat([old[:18], torch.zeros(1, 8), old[18:]]))
    assert "gates 19 -> 20 rows: the last stays last, new ones are 0" in {
        r.how for r in account.resized
    }


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"focal_windows": 4}, r"focal_windows odd.*got 2 and \[4"),
        ({"focal_levels": 0}, r"at least 1.*got 0 and \[3"),
        ({"focal_windows": (3, 5)}, r"one for each; got 2 for 4 stages"),
        ({"depths": (1, 0, 1, 1)}, r"depths \(1, 0, 1, 1\)"),
    ],
)
def test_mistakes(changes, text) -> None:
    with pytest.raises(ValueError, match=f"^FocalNet: .*{text}"):
        FocalNet("nano", **changes)
