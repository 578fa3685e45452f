"""Swin against the authors' outputs, against mmdet's Swin, and against what it promises."""

import copy
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import swin_dense.openmmlab  # noqa: F401  so that mmdet imports without compiled ops
from swin_dense.backbones import Swin
from swin_dense.backbones.residual import DropPath
from swin_dense.backbones.swin import PRESETS, preset
from swin_dense.ops import extension

SHARED = Path(os.environ.get("SWIN_DENSE_SHARED", Path(__file__).parents[2].parent / "shared"))
GOLDEN = SHARED / "golden" / "v1_odd.safetensors"
SMALL = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4), "window_size": 4}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter away from where it starts, so that no branch is the identity."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
    return model


def small(**changes) -> Swin:
    return randomised(Swin(**{**SMALL, **changes}))


def weighted_sum(maps: tuple[Tensor, ...]) -> Tensor:
    return sum((m * torch.linspace(-1, 1, m.numel()).view_as(m)).sum() for m in maps)


def gradients(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    image = image.clone().requires_grad_()
    weighted_sum(model(image)).backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"image": image.grad, **found}


def assert_gradients_close(got: dict[str, Tensor], want: dict[str, Tensor], rel: float) -> None:
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        error = (got[name] - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)
        assert error <= rel, f"{name}: relative error {error:.1e}"


# --- Is it the authors' Swin ---------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
def test_golden_outputs_and_gradients() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    golden = safetensors.load_file(GOLDEN)
    model = Swin(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16)).eval()
    model.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=1e-4, rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def to_mmdet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names and merging order -> theirs, which merge with nn.Unfold: channel before place."""
    names = {
        "patch_embed.proj": "patch_embed.projection",
        "layers.": "stages.",
        ".attn.": ".attn.w_msa.",
        ".mlp.fc1": ".ffn.layers.0.0",
        ".mlp.fc2": ".ffn.layers.1",
    }
    moved = {}
    for name, value in weights.items():
        if "downsample" in name:  # last axis (4 places, C) -> (C, 4 places), rows before columns
            value = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
            value = value.transpose(-2, -1).flatten(-2)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        moved[name] = value
    return moved


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [(65, 94, 5), (33, 130, 7), (9, 5, 7), (3 * 4, 4, 3), (4, 4, 7)],
    ids=["odd", "long", "smaller than a window", "thin", "one token"],
)
def test_same_as_mmdet(height: int, width: int, window: int) -> None:
    backbones = pytest.importorskip("mmdet.models.backbones.swin")
    ours = small(window_size=window).eval()
    theirs = backbones.SwinTransformer(
        embed_dims=SMALL["embed_dim"],
        depths=SMALL["depths"],
        num_heads=SMALL["num_heads"],
        window_size=window,
    )
    theirs.eval()  # returns None
    _, unexpected = theirs.load_state_dict(to_mmdet(ours.state_dict()), strict=False)
    assert not unexpected
    image = torch.randn(2, 3, height, width)
    for mine, yours in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-5)
    assert_gradients_close(to_mmdet(gradients(ours, image)), gradients(theirs, image), rel=1e-3)


def test_loads_a_state_with_the_authors_index_buffers() -> None:
    model = small()
    name = "layers.0.blocks.0.attn.relative_position_index"
    state = {**model.state_dict(), name: torch.zeros(16, 16, dtype=torch.long)}
    before = model.get_buffer(name).clone()
    assert name not in model.state_dict()
    model.load_state_dict(state)
    assert torch.equal(model.get_buffer(name), before)
    assert name in state  # the caller's dictionary is the caller's


def test_loads_through_init_cfg(tmp_path: Path) -> None:
    saved = small()
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "small.pth")
    cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "small.pth")}
    model = Swin(**SMALL, init_cfg=cfg)
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


# --- Shapes and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), [0], (2,)])
@pytest.mark.parametrize("size", [(64, 96), (37, 50), (5, 4)])
def test_announces_what_it_returns(out_indices, size: tuple[int, int]) -> None:
    model = small(out_indices=out_indices).eval()
    maps = model(torch.randn(2, 3, *size))
    assert isinstance(model.out_channels, tuple)
    assert isinstance(model.out_strides, tuple)
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, *(-(-side // stride) for side in size))
        for channels, stride in zip(model.out_channels, model.out_strides, strict=True)
    ]
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_other_patch_sizes_and_channels() -> None:
    model = small(patch_size=3, in_channels=5, depths=(1, 2), num_heads=(2, 3), out_indices=(0, 1))
    assert model.out_strides == (3, 6)
    assert [m.shape[2:] for m in model(torch.randn(1, 5, 10, 14))] == [(4, 5), (2, 3)]


def test_fewer_maps_are_the_same_maps() -> None:
    every, some = small().eval(), small(out_indices=(0, 2)).eval()
    some.load_state_dict(every.state_dict(), strict=False)
    image = torch.randn(1, 3, 37, 50)
    maps = every(image)
    for got, want in zip(some(image), (maps[0], maps[2]), strict=True):
        assert torch.equal(got, want)


def test_several_sizes_leave_no_trace() -> None:
    model = small().eval()
    images = [torch.randn(1, 3, *size) for size in ((64, 96), (37, 50), (96, 64), (4, 4))]
    first = [model(image) for image in images]
    for image, before in zip(images, first, strict=True):
        for got, want in zip(model(image), before, strict=True):
            assert torch.equal(got, want)


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = small().eval()
    images = torch.randn(3, 3, 37, 50)
    for index in range(3):
        alone = model(images[index : index + 1])
        for got, want in zip(model(images), alone, strict=True):
            torch.testing.assert_close(got[index : index + 1], want, atol=1e-5, rtol=1e-5)


def test_no_image_gives_no_maps() -> None:
    maps = small().eval()(torch.randn(0, 3, 37, 50))
    assert [m.shape[0] for m in maps] == [0, 0, 0, 0]


def test_absolute_place_embedding_fits_any_size() -> None:
    model = small(ape=True, pretrain_img_size=32).eval()
    assert model.absolute_pos_embed.shape == (1, 12, 8, 8)
    plain = small().eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "absolute" not in k})
    for size in ((32, 32), (37, 50)):
        image = torch.randn(1, 3, *size)
        assert not torch.equal(model(image)[0], plain(image)[0])
    # At the size it was made for it is added as it is.
    image = torch.randn(1, 3, 32, 32)
    embedding = model.absolute_pos_embed.permute(0, 2, 3, 1)
    plain.patch_embed.register_forward_hook(lambda module, args, out: out + embedding)
    for got, want in zip(model(image), plain(image), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


# --- Training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"ape": True}, {"out_indices": (1, 2)}, {"with_cp": True}])
def test_every_parameter_that_trains_gets_a_gradient(changes: dict) -> None:
    model = small(**changes, drop_path_rate=0.0).train()
    found = gradients(model, torch.randn(2, 3, 61, 75))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert found.keys() - {"image"} == trained
    assert all(g.abs().sum() > 0 for g in found.values())
    unused = {n for n, _ in model.named_parameters()} - trained
    if "out_indices" in changes:
        assert all(n.startswith(("layers.3.", "layers.2.downsample.")) for n in unused)
        assert unused
    else:
        assert not unused


def test_checkpointed_equals_plain() -> None:
    plain = small(drop_path_rate=0.5).train()
    spared = copy.deepcopy(plain)
    spared.with_cp = True
    image = torch.randn(2, 3, 61, 75)
    found = []
    for model in (plain, spared):
        torch.manual_seed(3)  # the same branches are dropped
        maps = model(image)
        torch.manual_seed(3)
        found.append((maps, gradients(model, image)))
    for got, want in zip(found[1][0], found[0][0], strict=True):
        assert torch.equal(got, want)
    assert_gradients_close(found[1][1], found[0][1], rel=1e-6)


FROZEN = {
    -1: (),
    0: ("patch_embed.",),
    1: ("patch_embed.", "absolute_pos_embed"),
    2: ("patch_embed.", "absolute_pos_embed", "layers.0."),
    3: ("patch_embed.", "absolute_pos_embed", "layers.0.", "layers.1."),
    5: ("patch_embed.", "absolute_pos_embed", "layers."),
}


@pytest.mark.parametrize("stages", FROZEN)
def test_frozen_from_the_start_and_after_train(stages: int) -> None:
    model = small(frozen_stages=stages, ape=True, pretrain_img_size=32)

    def check() -> None:
        for name, p in model.named_parameters():
            assert p.requires_grad != name.startswith(FROZEN[stages] or "none"), name
        for name, m in model.named_modules():
            if (name + ".").startswith(FROZEN[stages] or "none") and name != "layers":
                assert not m.training, name

    check()
    assert model.train() is model
    assert model.training
    check()
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    model.train()
    found = gradients(model, torch.randn(1, 3, 37, 50))
    assert not [n for n in found if n.startswith(FROZEN[stages] or "none")]


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    x = torch.ones(4000, 2, 3, 1)
    out = DropPath(0.25).train()(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert DropPath(0.25).eval()(x) is x


def test_drop_path_grows_linearly() -> None:
    model = Swin(**SMALL, drop_path_rate=0.7)
    rates = [b.drop_path.rate for layer in model.layers for b in layer.blocks]
    assert rates == pytest.approx([i / 10 for i in range(8)])


def test_weights_are_drawn_as_the_authors_do() -> None:
    for name, p in Swin(ape=True).named_parameters():
        if "norm" in name:
            assert p.eq(1 if name.endswith("weight") else 0).all(), name
        elif "patch_embed" not in name:
            assert p.std().item() == pytest.approx(0 if name.endswith("bias") else 0.02, rel=0.1)


def test_names_what_is_not_decayed() -> None:
    words = Swin.no_weight_decay_keywords
    kept = [n for n, _ in small(ape=True).named_parameters() if not any(w in n for w in words)]
    assert kept
    assert {n.rsplit(".", 2)[-2] for n in kept} == {"proj", "qkv", "fc1", "fc2", "reduction"}


def test_bfloat16_autocast_is_close() -> None:
    model = small().train()
    image = torch.randn(1, 3, 61, 75)
    with torch.no_grad():
        exact = model.eval()(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(image)
    for got, want in zip(maps, exact, strict=True):
        assert (got - want).abs().mean() < 0.05 * want.abs().mean()
    weighted_sum([m.float() for m in maps]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# --- Presets, registry, errors -------------------------------------------------------------------


def test_presets_are_the_papers_sizes() -> None:
    # Parameters without the classifier, in millions, from the head of the paper's table.
    for name, millions in {"tiny": 27.5, "small": 48.8, "base": 86.7, "large": 195.0}.items():
        with torch.device("meta"):
            model = Swin.from_preset(name)
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(millions, rel=0.005), name
    with torch.device("meta"):
        assert Swin.from_preset("tiny", window_size=12).layers[0].blocks[0].attn.window == 12
    preset("tiny")["embed_dim"] = 0
    assert PRESETS["tiny"]["embed_dim"] == 96


def test_name_clashes_with_nothing() -> None:
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    from mmdet.registry import MODELS as MMDET
    from mmdet.utils import register_all_modules
    from mmengine.registry import MODELS as ROOT
    from mmseg.registry import MODELS as MMSEG

    from swin_dense.registry import MODELS

    register_all_modules(init_default_scope=False)
    MMSEG.import_from_location()
    theirs = set().union(*(registry.module_dict for registry in (ROOT, MMDET, MMSEG)))
    assert "SwinTransformer" in theirs
    assert "Swin" in MODELS.module_dict
    assert not theirs & set(MODELS.module_dict)


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_builds_from_a_config_in_a_fresh_process(scope: str) -> None:
    pytest.importorskip(scope)
    code = f"""
        import swin_dense.openmmlab
        from {scope}.registry import MODELS
        print(type(MODELS.build(dict(type="swin_dense.Swin", embed_dim=6))))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "swin_dense.backbones.swin.Swin" in done.stdout


ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "depths": (lambda: Swin(depths=(2, 2)), r"depths \(2, 2\) and num_heads \(3, 6, 12, 24\)\. Gi"),
    "no depths": (lambda: Swin(depths=(), num_heads=()), r"depths \(\) and num_heads \(\)"),
    "empty stage": (lambda: Swin(depths=(2, 0, 6, 2)), r"depths at least 1; got depths \(2, 0, 6"),
    "heads": (lambda: Swin(embed_dim=100), r"stage 0 has 100 channels .* 3 heads\. Change embed_d"),
    "window": (lambda: Swin(window_size=0), r"at least 1; got 0 and 4\. The paper has 7 and 4"),
    "drop path": (lambda: Swin(drop_path_rate=1.0), r"from 0 to below 1; got 1\.0\. Usual"),
    "order": (lambda: Swin(out_indices=(2, 0)), r"0 to 3, in growing .*\(2, 0\)\. Try \(0, 1, 2"),
    "twice": (lambda: Swin(out_indices=(1, 1)), r"each once; got \(1, 1\)"),
    "range": (lambda: Swin(out_indices=(0, 4)), r"from 0 to 3.*got \(0, 4\)"),
    "negative": (lambda: Swin(out_indices=(-1,)), r"from 0 to 3.*got \(-1,\)"),
    "no index": (lambda: Swin(out_indices=()), r"got \(\)\. Try \(0, 1, 2, 3\)"),
    "frozen": (lambda: Swin(frozen_stages=6), r"to 5 \(all 4 stages frozen\); got 6\. Freeze the"),
    "preset": (lambda: preset("huge"), r"'huge'\. Choose from tiny, small, base, large"),
    "channels": (
        lambda: Swin(**SMALL)(torch.zeros(1, 1, 32, 32)),
        r"\(B, 3, height, width\), this has shape \(1, 1, 32, 32\)\. Set in_channels",
    ),
    "no batch axis": (lambda: Swin(**SMALL)(torch.zeros(3, 32, 32)), r"shape \(3, 32, 32\)"),
    "tiny image": (
        lambda: Swin(**SMALL)(torch.zeros(1, 3, 32, 3)),
        r"32x3 pixels is a size smaller than one patch\. The smallest allowed is 4x4; resize",
    ),
}


@pytest.mark.parametrize(("call", "text"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="embed_dims"):
        Swin(embed_dims=96)


# --- Compilers -----------------------------------------------------------------------------------


def test_compiles_as_one_graph() -> None:
    model = small(depths=(2, 2), num_heads=(1, 2), out_indices=(0, 1)).eval()
    image = torch.randn(2, 3, 37, 50)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    want, got = gradients(model, image), gradients(compiled, image)
    for mine, yours in zip(compiled(image), model(image), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
    prefix = "_orig_mod."
    assert_gradients_close({n.removeprefix(prefix): g for n, g in got.items()}, want, rel=1e-4)


def test_exports_for_every_size() -> None:
    """One program for all sizes of at least two tokens (without kernels, two windows) in the last
    stage; nothing in it rolls, cuts, pads or masks a map of tokens."""
    model = small().eval()
    least = 33 if extension.MISSING is None else 129
    sizes = {2: torch.export.Dim("height", min=least), 3: torch.export.Dim("width", min=least)}
    program = torch.export.export(
        model, (torch.randn(2, 3, 161, 190),), dynamic_shapes={"image": sizes}
    )
    for size in ((160, 130), (192, 192), (least, 257)):
        image = torch.randn(2, 3, *size)
        for mine, yours in zip(program.module()(image), model(image), strict=True):
            torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
    calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    blocks = sum(SMALL["depths"])
    if extension.MISSING is None:
        assert calls.count("swin_dense.window_attention.default") == blocks
        assert not [c for c in calls if any(word in c for word in ("roll", "masked", "softmax"))]
        assert sum("pad" in c for c in calls) == 1 + 3  # image, and before each merging
