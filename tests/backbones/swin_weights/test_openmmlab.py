"""mmdet's and mmseg's Swin against ours on converted weights; mmpretrain's by its names."""

import pytest
import torch
from swin_states import (
    DEPTHS,
    HEADS,
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

import swin_dense.openmmlab  # noqa: F401  so that mmdet imports without compiled ops
from swin_dense.checkpoints.layouts import convert, export


def build(project, **changes):
    swin = pytest.importorskip(f"{project}.models.backbones.swin").SwinTransformer
    sizes = {"embed_dims": WIDTH, "depths": DEPTHS, "num_heads": HEADS, "window_size": WINDOW}
    return randomise(swin(**sizes, **changes))


@pytest.mark.parametrize("project", ["mmdet", "mmseg"])
@torch.no_grad()
def test_same_maps(project):
    theirs = build(project)
    maps = dict(enumerate(theirs(image())))
    layout = assert_same_maps(V1, theirs.state_dict(), maps)
    assert layout == "OpenMMLab Swin V1 backbone (mmdet 3.x, mmseg 1.x, mmpretrain)"
    assert_round_trip(theirs.state_dict())


@torch.no_grad()
def test_exported_weights_compute_the_same_there():
    theirs, mine = build("mmdet"), ours(V1)
    state = export(
        mine.state_dict(), "OpenMMLab Swin V1 backbone (mmdet 3.x, mmseg 1.x, mmpretrain)"
    )
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("relative_position_index") for name in missing)
    odd = torch.randn(2, 3, 93, 131)  # these two agree at any size
    for got, want in zip(mine(odd), theirs(odd), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_without_the_order_of_merging_the_maps_differ():
    """That the comparison above can see it: the same names with the channels as they came."""
    theirs = build("mmdet")
    found = convert(theirs.state_dict()).state
    name = "layers.0.downsample.reduction.weight"
    mine = ours(V1)
    mine.load_state_dict(
        {**found, name: theirs.state_dict()["stages.0.downsample.reduction.weight"]}
    )
    first, second, *_ = zip(mine(image()), theirs(image()), strict=True)
    torch.testing.assert_close(*first, atol=1e-4, rtol=1e-4)
    assert (second[0] - second[1]).abs().max() > 0.1


def mmpretrain(kind):
    """A state dict by hand, from mmpretrain/models: backbones/swin_transformer.py and
    swin_transformer_v2.py, utils/attention.py and utils/embed.py; and mmcv's FFN and PatchEmbed.
    """
    sizes = {"patch_embed.projection.weight": (WIDTH, 3, 4, 4)}
    sizes |= {"patch_embed.projection.bias": (WIDTH,)}
    sizes |= {"patch_embed.norm.weight": (WIDTH,), "patch_embed.norm.bias": (WIDTH,)}
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        c = WIDTH * 2**stage
        for block in range(depth):
            at = f"stages.{stage}.blocks.{block}."
            for norm in ("norm1", "norm2"):
                sizes |= {f"{at}{norm}.weight": (c,), f"{at}{norm}.bias": (c,)}
            sizes |= {
                f"{at}ffn.layers.0.0.weight": (4 * c, c),
                f"{at}ffn.layers.0.0.bias": (4 * c,),
            }
            sizes |= {f"{at}ffn.layers.1.weight": (c, 4 * c), f"{at}ffn.layers.1.bias": (c,)}
            at += "attn.w_msa."
            sizes |= {at + "qkv.weight": (3 * c, c)}
            sizes |= {at + "proj.weight": (c, c), at + "proj.bias": (c,)}
            sizes |= {at + "relative_position_index": (WINDOW**2, WINDOW**2)}
            if kind == V1:
                sizes |= {at + "qkv.bias": (3 * c,)}
                sizes |= {at + "relative_position_bias_table": ((2 * WINDOW - 1) ** 2, heads)}
            else:
                sizes |= {
                    at + "q_bias": (c,),
                    at + "v_bias": (c,),
                    at + "logit_scale": (heads, 1, 1),
                }
                sizes |= {at + "cpb_mlp.0.weight": (512, 2), at + "cpb_mlp.0.bias": (512,)}
                sizes |= {at + "cpb_mlp.2.weight": (heads, 512)}
                sizes |= {at + "relative_coords_table": (1, 2 * WINDOW - 1, 2 * WINDOW - 1, 2)}
        if stage < 3:  # version 1 leaves a stage through its merging, version 2 enters by it
            at = f"stages.{stage if kind == V1 else stage + 1}.downsample."
            normed = 4 * c if kind == V1 else 2 * c
            sizes |= {at + "reduction.weight": (2 * c, 4 * c)}
            sizes |= {at + "norm.weight": (normed,), at + "norm.bias": (normed,)}
    sizes |= {"norm3.weight": (8 * WIDTH,), "norm3.bias": (8 * WIDTH,)}
    return {name: torch.randn(size) for name, size in sizes.items()}


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_classifier_of_mmpretrain(kind):
    bare = mmpretrain(kind)
    state = {f"backbone.{name}": tensor for name, tensor in bare.items()}
    state |= {"head.fc.weight": torch.ones(5, 8 * WIDTH), "head.fc.bias": torch.ones(5)}
    found = convert(state)
    projects = "mmdet 3.x, mmseg 1.x, mmpretrain" if kind == V1 else "mmpretrain"
    name = f"OpenMMLab {kind} backbone ({projects})"
    assert (found.layout, found.whole) == (name + " in a classifier", False)
    assert found.architecture == kind
    assert found.dropped["head.fc.bias"] == "classification head"
    ours(kind, out_indices=(3,)).load_state_dict(found.state, strict=True)
    assert_round_trip(state)
    assert_round_trip(bare)

    for mine, theirs in {
        "layers.2.blocks.1.mlp.fc1.weight": "stages.2.blocks.1.ffn.layers.0.0.weight",
        "layers.2.blocks.1.mlp.fc2.weight": "stages.2.blocks.1.ffn.layers.1.weight",
        "layers.2.blocks.1.attn.qkv.weight": "stages.2.blocks.1.attn.w_msa.qkv.weight",
        "norm3.bias": "norm3.bias",
    }.items():
        assert torch.equal(found.state[mine], bare[theirs]), mine


def test_merging_of_v2_by_hand():
    """Stage, and the order of the channels, which the norm behind the reduction does not have."""
    state = mmpretrain(V2)
    name = "stages.1.downsample.reduction.weight"
    for channel in range(WIDTH):
        for row in (0, 1):
            for column in (0, 1):  # as nn.Unfold counts
                place = 4 * channel + 2 * row + column
                state[name][:, place] = 100 * channel + 10 * row + column
    found = convert(state).state
    reduction = found["layers.0.downsample.reduction.weight"]
    assert reduction[0, :3].tolist() == [0, 100, 200]
    assert reduction[0, WIDTH : WIDTH + 3].tolist() == [10, 110, 210]
    assert reduction[0, 2 * WIDTH : 2 * WIDTH + 3].tolist() == [1, 101, 201]
    assert reduction[0, 3 * WIDTH : 3 * WIDTH + 3].tolist() == [11, 111, 211]
    theirs = state["stages.2.downsample.norm.bias"]
    assert torch.equal(found["layers.1.downsample.norm.bias"], theirs)


def test_the_extra_norms_of_the_large_sizes():
    state = mmpretrain(V2)
    for end in ("weight", "bias"):
        state[f"stages.2.blocks.2.norm3.{end}"] = torch.randn(4 * WIDTH)
    found = convert(state).state
    assert torch.equal(found["layers.2.blocks.2.norm3.bias"], state["stages.2.blocks.2.norm3.bias"])
    ours(V2, out_indices=(3,), extra_norm_every=3).load_state_dict(found, strict=True)


def test_first_files_of_mmpretrain():
    """They say norm for norm3 and carry masks."""
    state = {"backbone." + n.replace("norm3.", "norm."): t for n, t in mmpretrain(V1).items()}
    state["backbone.stages.0.blocks.1.attn.attn_mask"] = torch.zeros(4, 16, 16)
    state |= {"head.fc.weight": torch.ones(5, 8 * WIDTH), "head.fc.bias": torch.ones(5)}
    found = convert(state)
    assert torch.equal(found.state["norm3.bias"], state["backbone.norm.bias"])
    assert "backbone.stages.0.blocks.1.attn.attn_mask" in found.dropped


def test_simmim_of_mmpretrain():
    state = {f"backbone.{name}": tensor for name, tensor in mmpretrain(V1).items()}
    state |= {"backbone.mask_token": torch.ones(1, 1, WIDTH)}
    state |= {"neck.decoder.0.weight": torch.ones(3072, 96, 1, 1)}
    found = convert(state)
    assert found.layout.startswith("OpenMMLab Swin V1 backbone")
    assert found.layout.endswith(" in masked pre-training")
    assert {"backbone.mask_token", "neck.decoder.0.weight"} < set(found.dropped)
    ours(V1, out_indices=(3,)).load_state_dict(found.state, strict=True)
