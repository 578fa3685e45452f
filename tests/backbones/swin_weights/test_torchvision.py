"""torchvision's Swins against ours, on weights that were converted."""

import pytest
import torch
from peers import peer
from swin_states import (
    DEPTHS,
    HEADS,
    V1,
    V2,
    WIDTH,
    WINDOW,
    assert_same_maps,
    image,
    ours,
    randomise,
)

from swin_dense.checkpoints.layouts import convert, export


def build(kind):
    swin = peer("torchvision.models.swin_transformer")
    parts = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    sizes = {"embed_dim": WIDTH, "depths": list(DEPTHS), "num_heads": list(HEADS)}
    return randomise(
        swin.SwinTransformer(
            [4, 4], **sizes, window_size=[WINDOW, WINDOW], **(parts if kind == V2 else {})
        )
    )


@pytest.mark.parametrize("kind", [V1, V2])
@torch.no_grad()
def test_same_maps(kind):
    theirs = build(kind)
    before = {n: t.clone() for n, t in theirs.state_dict().items()}
    last = theirs.norm(theirs.features(image())).permute(0, 3, 1, 2)
    assert assert_same_maps(kind, before, {3: last}) == f"torchvision {kind}"


@pytest.mark.parametrize("kind", [V1, V2])
@torch.no_grad()
def test_exported_weights_compute_the_same_there(kind):
    theirs, mine = build(kind), ours(kind, out_indices=(3,))
    state = export(mine.state_dict(), f"torchvision {kind}")
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("relative_" in name or name.startswith("head.") for name in missing)
    last = theirs.norm(theirs.features(image())).permute(0, 3, 1, 2)
    torch.testing.assert_close(mine(image())[0], last, atol=1e-4, rtol=1e-4)


def test_blocks_and_mergings_take_turns():
    state = ours(V1, out_indices=(3,)).state_dict()
    theirs = export(state, "torchvision Swin V1")
    for mine, name in {
        "patch_embed.proj.bias": "features.0.0.bias",
        "patch_embed.norm.bias": "features.0.2.bias",
        "layers.0.blocks.1.mlp.fc1.bias": "features.1.1.mlp.0.bias",
        "layers.0.downsample.norm.bias": "features.2.norm.bias",
        "layers.2.blocks.2.mlp.fc2.bias": "features.5.2.mlp.3.bias",
        "layers.2.downsample.reduction.weight": "features.6.reduction.weight",
        "layers.3.blocks.0.attn.qkv.bias": "features.7.0.attn.qkv.bias",
        "norm3.bias": "norm.bias",
    }.items():
        assert torch.equal(theirs[name], state[mine]), name
    assert len(theirs) == len(state)


def test_the_bias_of_keys_in_v2():
    state = ours(V2, out_indices=(3,)).state_dict()
    theirs = export(state, "torchvision Swin V2")
    bias = theirs["features.3.0.attn.qkv.bias"]  # 24 channels
    assert torch.equal(bias[:24], state["layers.1.blocks.0.attn.q_bias"])
    assert bias[24:48].eq(0).all()
    assert torch.equal(bias[48:], state["layers.1.blocks.0.attn.v_bias"])
    found = convert(theirs)
    assert found.dropped["features.3.0.attn.qkv.bias[k]"].endswith("to zero before each use")
    assert found.state.keys() == state.keys()
