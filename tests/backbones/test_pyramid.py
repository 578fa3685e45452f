"""What Swin and SwinV2 promise alike: sizes, training, errors, compilers."""

from collections.abc import Callable

import pytest
import torch
from networks import SMALL, gradients, randomised, small, weighted_sum
from torch.nn.functional import layer_norm

from swin_dense.backbones import Swin, SwinV2
from swin_dense.checkpoints import layouts
from swin_dense.ops import extension

pytestmark = [
    pytest.mark.plain,
    pytest.mark.parametrize("kind", [Swin, SwinV2]),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- Shapes and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (37, 50), (5, 4)])
def test_maps_are_rounded_up_and_in_channels_last(kind, size: tuple[int, int]) -> None:
    model = small(kind).eval()
    maps = model(torch.randn(2, 3, *size))
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


def test_the_place_embedding_gets_a_gradient(kind) -> None:
    found = gradients(small(kind, ape=True).train(), torch.randn(2, 3, 61, 75))
    assert found["absolute_pos_embed"].abs().sum() > 0


FROZEN = {
    -1: (),
    0: ("patch_embed.",),
    1: ("patch_embed.", "absolute_pos_embed"),
    2: ("patch_embed.", "absolute_pos_embed", "layers.0."),
    3: ("patch_embed.", "absolute_pos_embed", "layers.0.", "layers.1."),
    5: ("patch_embed.", "absolute_pos_embed", "layers."),
}


@pytest.mark.parametrize("stages", FROZEN)
def test_frozen_stages_count_as_the_authors_do(kind, stages: int) -> None:
    model = small(kind, frozen_stages=stages, ape=True, pretrain_img_size=32)
    for name, p in model.named_parameters():
        assert p.requires_grad != name.startswith(FROZEN[stages] or "none"), name


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
}


@pytest.mark.parametrize(("call", "text"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(kind, call: Callable[[type], object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: .*{text}"):
        call(kind)


# --- Compilers -----------------------------------------------------------------------------------


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
