"""Models of timm as backbones: the contract, a model of each family, weights, mistakes."""

import ast
import re
import sys

import pytest
import torch
from adapter_contract import AdapterContract
from networks import SHARED, randomised, weighted_sum
from peers import peer
from safetensors import safe_open

from swin_dense.backbones import timm_models
from swin_dense.backbones.asked import layers_by_name
from swin_dense.backbones.timm_models import Timm
from swin_dense.openmmlab.engine import weights

timm = peer("timm")

# What small models are called, the smallest first.
SMALL = (
    *("test", "atto", "femto", "pico", "nano", "xxs", "xx_small", "xxtiny", "xs", "x_small"),
    *("xsmall", "050", "s0", "m0", "t0", "b0", "a", "s1", "5m", "mini", "ti", "tiny", "t", "t8"),
)
MODELS = 40


def rank(name: str) -> tuple[int, int, str]:
    words = [i for i, word in enumerate(SMALL) if re.search(rf"(_|^|v\d){word}(_|$)", name)]
    return min(words, default=len(SMALL)), len(name), name


def families() -> dict[str, list[str]]:
    """Each family of the installed timm with its models, the smallest first by their names."""
    found = {name: sorted(timm.list_models(module=name), key=rank) for name in timm.list_modules()}
    return {name: models for name, models in found.items() if models}


def chosen() -> list[str]:
    """timm's own models for tests, then the smallest of other families, 40 in all."""
    tests = timm.list_models("test_*")
    seen = {timm.models._registry._model_to_module[name] for name in tests}
    others = [models[0] for family, models in families().items() if family not in seen]
    # Those resize images themselves, or are large or slow whatever they are called.
    others = [n for n in others if not n.startswith(("crossvit", "dla", "levit_conv"))]
    return [*tests, *sorted(others, key=rank)][:MODELS]


class TestTimm(AdapterContract):
    kind = Timm

    # Of a few layers are timm's models for tests alone; the others together take minutes.
    @pytest.fixture(
        params=[
            name if name.startswith("test_") else pytest.param(name, marks=pytest.mark.slow)
            for name in chosen()
        ],
        scope="class",
    )
    def stated(self, request) -> dict:
        return {"model": request.param}


def test_forty_models_of_twenty_families() -> None:
    names = chosen()
    assert len(set(names)) == MODELS
    assert len({timm.models._registry._model_to_module[name] for name in names}) >= 20


# --- The authors' arithmetic and their names ------------------------------------------------------


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict]:
    path = SHARED / f"golden/{name}.safetensors"
    if not path.exists():
        pytest.skip(f"no {path}")
    with safe_open(path, "pt") as file:
        words = {k: v for k, v in file.metadata().items() if v[:1] in "[0123456789"}
        stated = {k: ast.literal_eval(v) for k, v in words.items()}
        return {key: file.get_tensor(key) for key in file.keys()}, stated  # noqa: SIM118


TINY = "embed_dims depths num_heads window_sizes mlp_ratio mbconv_expand_ratio local_conv_size"
GC = "window_ratio embed_dim depths num_heads mlp_ratio layer_scale img_size"


@pytest.mark.parametrize(
    ("file", "model", "arguments", "rounding"),
    [("tinyvit", "tiny_vit_5m_224", TINY, 2e-5), ("gcvit", "gcvit_xxtiny", GC, 8e-6)],
)
def test_same_maps_and_gradients_as_the_authors(
    file, model, arguments, rounding, tmp_path, monkeypatch
) -> None:
    """A file of their weights, under their names, goes the way of any file."""
    kept, stated = golden(file)
    if file == "gcvit":  # timm's entry points state its depths and take no others
        monkeypatch.setitem(
            timm.models._registry._model_entrypoints,
            model,
            lambda pretrained=False, **options: timm.models.gcvit._create_gcvit(model, **options),
        )
    backbone = Timm(model, options={name: stated[name] for name in arguments.split()}).eval()
    state = {name[2:]: tensor for name, tensor in kept.items() if name.startswith("p.")}
    torch.save({"model": {**state, "head.weight": torch.ones(3, 32)}}, tmp_path / "theirs.pth")
    ledger = weights.load_pretrained(backbone, str(tmp_path / "theirs.pth"))
    assert len(ledger.loaded) == len(state)
    assert list(ledger.unused) == ["head.weight"]
    image = kept["x"].requires_grad_()
    maps = backbone(image)
    for index, found in enumerate(maps):
        assert (found - kept[f"out{index}"]).abs().max() <= 5 * rounding
    weighted_sum(maps).backward()
    assert (image.grad - kept["gx"]).abs().max() <= 1e-3 * kept["gx"].abs().max()


def test_a_file_under_timm_s_names_loads_with_its_head_alone_unused(tmp_path) -> None:
    """Names of parts for features have underscores where the file has dots."""
    theirs = randomised(timm.create_model("test_convnext", num_classes=7)).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    backbone = Timm(
        "test_convnext", init_cfg=dict(type="Pretrained", checkpoint=f"{tmp_path}/w.pth")
    )
    backbone.init_weights()
    (account,) = weights.loaded_into(backbone)
    assert all(name.startswith("head.") for name in account["unused"])
    image = torch.randn(1, 3, 64, 96)
    last = theirs.forward_intermediates(image, norm=False, intermediates_only=True)[-1]
    torch.testing.assert_close(backbone.eval()(image)[-1], last, atol=1e-5, rtol=1e-5)


def test_a_table_of_another_size_is_resized_by_timm_and_said(tmp_path, monkeypatch) -> None:
    theirs = timm.create_model("test_vit", img_size=96)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    said: list[str] = []
    monkeypatch.setattr(weights, "_print", said.append)
    backbone = Timm("test_vit", img_size=(64, 128))
    weights.load_pretrained(backbone, str(tmp_path / "w.pth"))
    assert any(
        re.search(r"pos_embed \(1, 37, 64\) -> \(1, 33, 64\), by timm", line) for line in said
    )


def test_weights_of_another_family_are_refused(tmp_path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"Is this file for the same architecture"):
        weights.load_pretrained(Timm("test_resnet"), str(tmp_path / "w.pth"))


def test_pretrained_names_the_file_of_the_hub() -> None:
    name = "convnext_tiny.in12k_ft_in1k"
    found = timm_models.pretrained_state(name)
    assert found == f"hf://timm/{name}/model.safetensors"
    backbone = Timm("test_convnext.r160_in1k", pretrained=True)
    assert backbone.init_cfg["checkpoint"] == "hf://timm/test_convnext.r160_in1k/model.safetensors"
    with pytest.raises(ValueError, match=r"timm names no weights for .*_hnfd\. Leave `pretrained`"):
        timm_models.pretrained_state("convnext_tiny_hnfd")


# --- What it is told and what it tells ------------------------------------------------------------


def test_maps_of_channels_last_models_are_permuted() -> None:
    found = timm.create_model("test_mambaout", features_only=True)
    image = torch.randn(1, 3, 64, 96)
    ours = Timm("test_mambaout").eval()
    ours.net.load_state_dict(found.state_dict())
    for mine, theirs in zip(ours(image), found.eval()(image), strict=True):
        assert torch.equal(mine, theirs.permute(0, 3, 1, 2))


def test_a_filled_up_image_is_the_image_beside_zeros() -> None:
    model = Timm("test_vit").eval()
    assert model.asked.divisor == 16
    image = torch.randn(1, 3, 61, 75)
    filled = torch.zeros(1, 3, 64, 80)
    filled[..., :61, :75] = image
    for mine, theirs in zip(model(image), model(filled), strict=True):
        assert torch.equal(mine, theirs)


def test_a_fixed_size_is_said_and_kept() -> None:
    model = Timm("pit_ti_224")
    assert model.asked.fixed == (224, 224)
    assert "224x224 (height x width) alone" in model.asked.in_words
    with pytest.raises(
        ValueError, match=r"^Timm: an image of 225x64 pixels is too large.*img_size"
    ):
        model(torch.zeros(1, 3, 225, 64))
    with pytest.raises(ValueError, match=r"does not take img_size.*leave img_size out"):
        Timm("test_convnext", img_size=96)


def test_layers_and_what_never_decays_are_timm_s() -> None:
    model = Timm("tiny_vit_5m_224")
    named = dict(model.named_parameters())
    tables = [name for name in named if "attention_biases" in name]
    assert tables
    assert set(model.no_weight_decay_keywords) == set(tables)
    whole = timm.create_model("tiny_vit_5m_224")
    groups = timm.models.group_parameters(whole, whole.group_matcher(), reverse=True)
    for name in ("stages.0.blocks.0.conv1.conv.weight", "stages.2.blocks.1.attn.qkv.weight"):
        assert model.depth_of(f"net.{name.replace('stages.', 'stages_')}") == groups[name]


def test_layers_of_a_model_without_groups() -> None:
    names = ["stem.w", "stages.0.pool.w", "stages.0.blocks.0.w", "stages.0.blocks.1.w"]
    names += ["stages.0.down.w", "stages.1.pool.w", "stages.1.blocks.0.w", "norm.w"]
    assert list(layers_by_name(names).values()) == [0, 0, 1, 2, 2, 3, 3, 3]
    assert layers_by_name(["conv.w", "layer.0.a.w", "layer.0.b.w", "layer.1.a.w"]) == {
        "conv.w": 0,
        "layer.0.a.w": 1,
        "layer.0.b.w": 1,
        "layer.1.a.w": 2,
    }


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("convnextt_tiny", r"has no model 'convnextt_tiny'\. Did you mean 'convnext_tiny'"),
        (
            "test_vit.r160_in1kk",
            r"no weights 'test_vit\.r160_in1kk'\. Did you mean 'test_vit",
        ),
        ("crossvit_tiny_240", r"its maps do not grow with the image .* Take another model"),
    ],
)
def test_wrong_names_say_the_rule(model: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^Timm: .*{text}"):
        Timm(model)


def test_a_model_without_maps_says_so(monkeypatch) -> None:
    def refuse(name, features_only=False, **options):
        if features_only:
            raise RuntimeError("features_only not implemented for this model")
        return made_model

    made_model = timm.create_model("test_vit")
    monkeypatch.setattr(timm, "create_model", refuse)
    monkeypatch.setattr(timm_models, "_answers", {})
    with pytest.raises(ValueError, match=r"cannot be built to give maps .*features_only not.*mean"):
        Timm("test_vit")


def test_options_it_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^Timm: test_convnext does not take dimms"):
        Timm("test_convnext", options={"dimms": 3})


def test_a_missing_or_broken_package_is_named_with_what_helps(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm does not import .*pip install '\.\[timm\]'"):
        Timm("test_vit")

    def broken(name, *rest):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr("builtins.__import__", broken)
    try:
        with pytest.raises(ValueError) as found:
            timm_models._timm()
    finally:
        monkeypatch.undo()
    assert re.search(
        r"the one installed is not built for torch .*same release and kind", str(found.value)
    )


def test_what_ours_is_better_at_is_said() -> None:
    about = Timm.about("swin_tiny_patch4_window7_224.ms_in1k")
    assert "licence of its weights, as timm has it: mit" in about.lines[0]
    assert "swin_dense.Swin; timm rolls" in about.lines[1]
    assert about.mean == [123.675, 116.28, 103.53]
    assert len(Timm.about("test_resnet").lines) == 1
    assert Timm.about("vit_tiny_patch16_224").std == [127.5] * 3
