"""What Swin and SwinV2 promise alike: sizes, training, errors, compilers."""

import copy
from collections.abc import Callable

import pytest
import torch
from networks import SMALL, assert_gradients_close, gradients, randomised, small, weighted_sum
from torch.nn.functional import layer_norm

from swin_dense.backbones import Swin, SwinV2
from swin_dense.checkpoints import layouts
from swin_dense.ops import extension

pytestmark = pytest.mark.parametrize("kind", [Swin, SwinV2])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- Shapes and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 3), [0], (2,)])
@pytest.mark.parametrize("size", [(64, 96), (37, 50), (5, 4)])
def test_announces_what_it_returns(kind, out_indices, size: tuple[int, int]) -> None:
    model = small(kind, out_indices=out_indices).eval()
    maps = model(torch.randn(2, 3, *size))
    assert isinstance(model.out_channels, tuple)
    assert isinstance(model.out_strides, tuple)
    assert [tuple(m.shape) for m in maps] == [
        (2, channels, *(-(-side // stride) for side in size))
        for channels, stride in zip(model.out_channels, model.out_strides, strict=True)
    ]
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


def test_other_patch_sizes_and_channels(kind) -> None:
    model = small(
        kind, patch_size=3, in_channels=5, depths=(1, 2), num_heads=(2, 3), out_indices=(0, 1)
    )
    assert model.out_strides == (3, 6)
    assert [m.shape[2:] for m in model(torch.randn(1, 5, 10, 14))] == [(4, 5), (2, 3)]


def test_fewer_maps_are_the_same_maps(kind) -> None:
    every, some = small(kind).eval(), small(kind, out_indices=(0, 2)).eval()
    some.load_state_dict(every.state_dict(), strict=False)
    image = torch.randn(1, 3, 37, 50)
    maps = every(image)
    for got, want in zip(some(image), (maps[0], maps[2]), strict=True):
        assert torch.equal(got, want)


def test_several_sizes_leave_no_trace(kind) -> None:
    model = small(kind).eval()
    images = [torch.randn(1, 3, *size) for size in ((64, 96), (37, 50), (96, 64), (4, 4))]
    first = [model(image) for image in images]
    for image, before in zip(images, first, strict=True):
        for got, want in zip(model(image), before, strict=True):
            assert torch.equal(got, want)


def test_an_image_does_not_depend_on_its_batch(kind) -> None:
    model = small(kind).eval()
    images = torch.randn(3, 3, 37, 50)
    for index in range(3):
        alone = model(images[index : index + 1])
        for got, want in zip(model(images), alone, strict=True):
            torch.testing.assert_close(got[index : index + 1], want, atol=1e-5, rtol=1e-5)


def test_no_image_gives_no_maps(kind) -> None:
    maps = small(kind).eval()(torch.randn(0, 3, 37, 50))
    assert [m.shape[0] for m in maps] == [0, 0, 0, 0]


def test_absolute_place_embedding_fits_any_size(kind) -> None:
    model = small(kind, ape=True, pretrain_img_size=32).eval()
    assert model.absolute_pos_embed.shape == (1, 12, 8, 8)
    plain = small(kind).eval()
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
def test_every_parameter_that_trains_gets_a_gradient(kind, changes: dict) -> None:
    model = small(kind, **changes, drop_path_rate=0.0).train()
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


def test_checkpointed_equals_plain(kind) -> None:
    plain = small(kind, drop_path_rate=0.5).train()
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
def test_frozen_from_the_start_and_after_train(kind, stages: int) -> None:
    model = small(kind, frozen_stages=stages, ape=True, pretrain_img_size=32)

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


def test_drop_path_grows_linearly(kind) -> None:
    model = kind(**SMALL, drop_path_rate=0.7)
    rates = [b.drop_path.rate for layer in model.layers for b in layer.blocks]
    assert rates == pytest.approx([i / 10 for i in range(8)])


def test_bfloat16_autocast_is_close(kind) -> None:
    model = small(kind).train()
    image = torch.randn(1, 3, 61, 75)
    with torch.no_grad():
        exact = model.eval()(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = model(image)
    for got, want in zip(maps, exact, strict=True):
        assert (got - want).abs().mean() < 0.05 * want.abs().mean()
    weighted_sum([m.float() for m in maps]).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


ERRORS: dict[str, tuple[Callable[[type], object], str]] = {
    "depths": (
        lambda kind: kind(depths=(2, 2)),
        r"depths \(2, 2\) and num_heads \(3, 6, 12, 24\)\. Gi",
    ),
    "no depths": (lambda kind: kind(depths=(), num_heads=()), r"depths \(\) and num_heads \(\)"),
    "empty stage": (
        lambda kind: kind(depths=(2, 0, 6, 2)),
        r"at least 1; got depths \(2, 0, 6",
    ),
    "heads": (
        lambda kind: kind(embed_dim=100),
        r"0 has 100 channels .* 3 heads\. Change",
    ),
    "window": (
        lambda kind: kind(window_size=0),
        r"least 1; got 0 and 4\. 7 or 8 and 4 are",
    ),
    "drop path": (lambda kind: kind(drop_path_rate=1.0), r"from 0 to below 1; got 1\.0\. Usual"),
    "order": (
        lambda kind: kind(out_indices=(2, 0)),
        r"to 3, in growing .*\(2, 0\)\. Try \(0, 1",
    ),
    "twice": (lambda kind: kind(out_indices=(1, 1)), r"each once; got \(1, 1\)"),
    "range": (lambda kind: kind(out_indices=(0, 4)), r"from 0 to 3.*got \(0, 4\)"),
    "negative": (lambda kind: kind(out_indices=(-1,)), r"from 0 to 3.*got \(-1,\)"),
    "no index": (lambda kind: kind(out_indices=()), r"got \(\)\. Try \(0, 1, 2, 3\)"),
    "frozen": (
        lambda kind: kind(frozen_stages=6),
        r"to 5 \(all 4 stages frozen\); got 6\. Fr",
    ),
    "channels": (
        lambda kind: kind(**SMALL)(torch.zeros(1, 1, 32, 32)),
        r"\(B, 3, height, width\), this has shape \(1, 1, 32, 32\)\. Set in_channels",
    ),
    "no batch axis": (lambda kind: kind(**SMALL)(torch.zeros(3, 32, 32)), r"shape \(3, 32, 32\)"),
    "tiny image": (
        lambda kind: kind(**SMALL)(torch.zeros(1, 3, 32, 3)),
        r"32x3 pixels is a size smaller than one patch\. The smallest allowed is 4x4; resize",
    ),
}


@pytest.mark.parametrize(("call", "text"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(kind, call: Callable[[type], object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: .*{text}"):
        call(kind)


def test_unknown_arguments_are_refused(kind) -> None:
    with pytest.raises(TypeError, match="embed_dims"):
        kind(embed_dims=96)


# --- Compilers -----------------------------------------------------------------------------------


def test_compiles_as_one_graph(kind) -> None:
    model = small(kind, depths=(2, 2), num_heads=(1, 2), out_indices=(0, 1)).eval()
    image = torch.randn(2, 3, 37, 50)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    want, got = gradients(model, image), gradients(compiled, image)
    for mine, yours in zip(compiled(image), model(image), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
    prefix = "_orig_mod."
    assert_gradients_close({n.removeprefix(prefix): g for n, g in got.items()}, want, rel=1e-4)


def test_exports_for_every_size(kind) -> None:
    """One program for all sizes of at least two tokens (without kernels, and for V2, more than one
    window) in the last stage; nothing in it rolls, cuts, pads or masks a map of tokens."""
    model = small(kind).eval()
    least = 33 if extension.MISSING is None and kind is Swin else 129
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


# --- Against an independent implementation -------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 160), (163, 197), (203, 161)])
def test_same_as_transformers(kind, size: tuple[int, int]) -> None:
    """At multiples of the window and at odd sizes. For V2 every map has to be larger than a window:
    theirs shrink windows for the image size they were made for, rounded down."""
    transformers = pytest.importorskip("transformers")
    name = {Swin: "Swin", SwinV2: "Swinv2"}[kind]
    sizes = {"embed_dim": 12, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 3, 4], "window_size": 4}
    config = getattr(transformers, f"{name}Config")(
        image_size=size, **sizes, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    theirs = randomised(getattr(transformers, f"{name}Backbone")(config)).eval()
    ours = kind(**SMALL).eval()
    missing, unexpected = ours.load_state_dict(
        layouts.convert(theirs.state_dict()).state, strict=False
    )
    assert not unexpected
    assert len(missing) == (0 if kind is Swin else 8)  # V2 there has no norms of its maps
    image = torch.randn(2, 3, *size, requires_grad=True)
    maps = theirs(image).feature_maps
    if kind is SwinV2:
        maps = [layer_norm(m.movedim(1, -1), m.shape[1:2]).movedim(-1, 1) for m in maps]
    found = ours(image)
    for mine, yours in zip(found, maps, strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-4)
    mine, yours = (torch.autograd.grad(weighted_sum(m), image)[0] for m in (found, maps))
    assert (mine - yours).abs().max() <= 1e-3 * yours.abs().max()
