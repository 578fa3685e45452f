"""timm's Swins against ours, on weights that were converted."""

import pytest
import torch
import torch.nn.functional as F
from peers import peer
from swin_states import (
    DEPTHS,
    HEADS,
    IMAGE,
    V1,
    V2,
    WIDTH,
    WINDOW,
    assert_round_trip,
    assert_same_maps,
    image,
    ours,
    randomise,
)

from swin_dense.checkpoints.layouts import convert, export

FILES = {
    V1: ("swin_transformer", "SwinTransformer"),
    V2: ("swin_transformer_v2", "SwinTransformerV2"),
}


def build(kind):
    file, name = FILES[kind]
    sizes = {"img_size": IMAGE, "embed_dim": WIDTH, "depths": DEPTHS, "num_heads": HEADS}
    return randomise(getattr(peer(f"timm.models.{file}"), name)(**sizes, window_size=WINDOW))


@pytest.mark.parametrize("kind", [V1, V2])
@torch.no_grad()
def test_same_maps(kind):
    theirs = build(kind)
    last = theirs.forward_features(image()).permute(0, 3, 1, 2)
    assert assert_same_maps(kind, theirs.state_dict(), {3: last}) == f"timm {kind}"
    assert_round_trip(theirs.state_dict())


@pytest.mark.parametrize("kind", [V1, V2])
@torch.no_grad()
def test_features_only(kind):
    """Four maps without norms."""
    theirs = build(kind)
    names = {n.replace("layers.", "layers_"): t for n, t in theirs.state_dict().items()}
    names = {n: t for n, t in names.items() if not n.startswith(("norm", "head"))}
    found = convert(names)
    assert found.layout == f"timm {kind}, features only"
    assert_round_trip(names)

    mine = ours(kind)  # whose output norms are set to do nothing but norm
    for stage in range(4):
        found.state[f"norm{stage}.weight"] = torch.ones(WIDTH * 2**stage)
        found.state[f"norm{stage}.bias"] = torch.zeros(WIDTH * 2**stage)
    mine.load_state_dict(found.state)
    maps = theirs.forward_intermediates(image(), intermediates_only=True)
    for got, want in zip(mine(image()), maps, strict=True):
        want = F.layer_norm(want.permute(0, 2, 3, 1), got.shape[1:2]).permute(0, 3, 1, 2)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_a_real_features_only_model_has_these_names():
    timm = peer("timm")
    model = timm.create_model("swin_tiny_patch4_window7_224", features_only=True)
    assert convert(model.state_dict()).layout == "timm Swin V1, features only"


@pytest.mark.parametrize("kind", [V1, V2])
def test_merging_is_counted_from_the_next_stage(kind):
    state = ours(kind, out_indices=(3,)).state_dict()
    theirs = export(state, f"timm {kind}")
    assert torch.equal(
        theirs["layers.2.downsample.reduction.weight"],
        state["layers.1.downsample.reduction.weight"],
    )
    assert "layers.0.downsample.reduction.weight" not in theirs
    assert convert({**theirs, "head.fc.weight": torch.ones(5, 96)}).dropped == {
        "head.fc.weight": "classification head"
    }


def test_old_files_have_the_authors_names():
    state = ours(V1, out_indices=(3,)).state_dict()
    old = {n.replace("norm3.", "norm."): t for n, t in state.items()}
    assert convert({**old, "head.weight": torch.ones(5, 96)}).layout.startswith("official")
