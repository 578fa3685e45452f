"""The authors' files: classification, pre-training with SimMIM, and our own backbones."""

import os
from pathlib import Path

import pytest
import torch
from swin_states import (
    MLP,
    OURS,
    SMALL,
    V1,
    V2,
    WIDTH,
    WINDOW,
    assert_round_trip,
    ours,
    spatial_mlp_state,
)

from swin_dense.checkpoints import resizing
from swin_dense.checkpoints.layouts import convert, export
from swin_dense.checkpoints.resizing import BIAS_TABLE
from swin_dense.errors import InputError

SHARED = Path(os.environ.get("SWIN_DENSE_SHARED", Path(__file__).parents[3].parent / "shared"))


def classifier(kind, **changes):
    """As models/swin_transformer.py and swin_transformer_v2.py write it, with their buffers."""
    state = ours(kind, out_indices=(3,), **changes).state_dict()
    state = {
        n.replace("norm3.", "norm.") if n.startswith("norm3.") else n: t for n, t in state.items()
    }
    state |= {"head.weight": torch.ones(5, 8 * WIDTH), "head.bias": torch.ones(5)}
    for stage, depth in enumerate(SMALL["depths"]):
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}."
            state[at + "attn.relative_position_index"] = torch.zeros(WINDOW**2, WINDOW**2)
            if block % 2:
                state[at + "attn_mask"] = torch.zeros(4, WINDOW**2, WINDOW**2)
            if kind == V2:
                state[at + "attn.relative_coords_table"] = torch.zeros(1, 7, 7, 2)
    return state


@pytest.mark.parametrize("kind", [V1, V2])
def test_classification(kind):
    state = classifier(kind)
    found = convert(state)
    assert (found.layout, found.whole) == (f"official {kind} classification", False)
    model = ours(kind, out_indices=(3,))
    model.load_state_dict(found.state, strict=True)
    assert torch.equal(model.norm3.bias, state["norm.bias"])
    assert found.dropped["head.weight"] == "classification head"
    why = found.dropped["layers.0.blocks.1.attn_mask"]
    assert why == "follows from the window, the model computes it"
    assert_round_trip(state)


def test_swin_mlp():
    state = spatial_mlp_state()
    found = convert({**state, "head.weight": torch.ones(5, 96), "head.bias": torch.ones(5)})
    assert (found.layout, found.architecture) == ("official Swin-MLP classification", MLP)
    assert len(found.state) == len(state)
    assert_round_trip(state)


def test_v2_as_it_was_first_written():
    """utils_simmim.py reads files that say rpe_mlp."""
    state = {n.replace("cpb_mlp", "rpe_mlp"): t for n, t in classifier(V2).items()}
    found = convert(state)
    ours(V2, out_indices=(3,)).load_state_dict(found.state, strict=True)


@pytest.mark.parametrize("kind", [V1, V2])
def test_our_own_backbone(kind):
    state = ours(kind).state_dict()
    found = convert(state)
    assert found.layout == f"official {kind} backbone"
    assert found.dropped == {}
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())
    assert_round_trip(state)
    wrapped = convert({f"module.{name}": tensor for name, tensor in state.items()})
    assert wrapped.state.keys() == state.keys()


@pytest.mark.parametrize("kind", [V1, V2])
def test_place_embedding_is_a_map_here_and_a_row_there(kind):
    state = classifier(kind, ape=True, pretrain_img_size=12)  # (1, C, 3, 3) here
    mine = state["absolute_pos_embed"]
    rows = torch.empty(1, 9, WIDTH)
    for row in range(3):
        for column in range(3):
            rows[0, 3 * row + column] = mine[0, :, row, column]
    state["absolute_pos_embed"] = rows
    found = convert(state)
    assert torch.equal(found.state["absolute_pos_embed"], mine)
    assert_round_trip(state)


def test_a_place_embedding_that_is_no_square_is_refused():
    state = classifier(V1, ape=True, pretrain_img_size=12)
    state["absolute_pos_embed"] = torch.ones(1, 10, WIDTH)
    with pytest.raises(InputError, match=r"absolute_pos_embed is \(1, 10, 12\)"):
        convert(state)


@pytest.mark.parametrize("kind", [V1, V2])
def test_simmim(kind):
    """models/simmim.py: the encoder is a classifier without a head, and a token for the hidden."""
    state = {f"encoder.{n}": t for n, t in classifier(kind).items() if not n.startswith("head.")}
    state |= {"encoder.mask_token": torch.ones(1, 1, WIDTH)}
    state |= {"decoder.0.weight": torch.ones(3072, 96, 1, 1), "decoder.0.bias": torch.ones(3072)}
    found = convert(state)
    assert found.layout == f"SimMIM pre-training, {kind}"
    assert {"encoder.mask_token", "decoder.0.weight", "decoder.0.bias"} < set(found.dropped)
    ours(kind, out_indices=(3,)).load_state_dict(found.state, strict=True)
    assert_round_trip(state)


def test_simmim_at_another_window():
    """Version 1 was pre-trained with windows of 6 and is used with 7 and more."""
    encoder = export(
        ours(V1, window_size=6, out_indices=(3,)).state_dict(), "SimMIM pre-training, Swin V1"
    )
    found = convert({**encoder, "encoder.mask_token": torch.ones(1, 1, WIDTH)})
    model = ours(V1, window_size=7, out_indices=(3,))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    rules = [("relative_position_bias_table", BIAS_TABLE)]
    fitted, changes = resizing.resize(found.state, shapes, rules)
    model.load_state_dict(fitted, strict=True)
    assert {c.how for c in changes} == {"bias table 6x6 -> 7x7 window, bicubic"}
    assert len(changes) == sum(SMALL["depths"])


def test_what_a_classifier_lacks_is_not_exported():
    state = ours(V1).state_dict()  # four output norms
    with pytest.raises(
        InputError, match=r"no place for 6 of 1\d\d tensors, first \['norm0.weight'"
    ):
        export(state, "official Swin V1 classification")


@pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="no golden outputs; SWIN_DENSE_SHARED")
@pytest.mark.parametrize(
    ("file", "kind", "mark", "axis", "indices"),
    [
        ("v1_odd", V1, "relative_position_bias_table", 1, (0, 1, 2, 3)),
        ("v2_w8_256", V2, "logit_scale", 0, (3,)),
    ],
    ids=["V1", "V2"],
)
def test_golden_weights(file, kind, mark, axis, indices):
    """Names as the authors' own code wrote them, dense for V1 and without a last norm for V2."""
    path = SHARED / "golden" / f"{file}.safetensors"
    golden = pytest.importorskip("safetensors.torch").load_file(path)
    state = {name[2:]: t for name, t in golden.items() if name.startswith("p.")}
    found = convert(state)
    assert (found.architecture, found.whole) == (kind, False)
    width = len(state["patch_embed.proj.bias"])
    heads = [state[f"layers.{s}.blocks.0.attn.{mark}"].shape[axis] for s in range(4)]
    depths = [sum(n.startswith(f"layers.{s}.") and mark in n for n in state) for s in range(4)]
    model = OURS[kind](embed_dim=width, depths=depths, num_heads=heads, out_indices=indices)
    missing, unexpected = model.load_state_dict(found.state, strict=False)
    assert not unexpected
    assert all(kind == V2 and name.startswith("norm3.") for name in missing)
