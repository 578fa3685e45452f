"""What makes a set of shapes a backbone, asked of Swins, and how each fault is told."""

import pytest
from swin_states import MLP, V1, V2, ours, spatial_mlp_state

from swin_dense.checkpoints import architecture
from swin_dense.checkpoints.layouts import structure


def problems(shapes, kind):
    (known,) = (a for a in architecture.registered() if a.name == kind)
    return structure.problems(shapes, known)


def shapes(kind, **changes):
    state = spatial_mlp_state() if kind == MLP else ours(kind, **changes).state_dict()
    return {
        n.replace("norm.", "norm3.") if n[:5] == "norm." else n: tuple(t.shape)
        for n, t in state.items()
    }


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (V1, {}),
        (V1, {"qkv_bias": False, "patch_norm": False, "ape": True, "mlp_ratio": 3.0}),
        (V1, {"out_indices": (1, 2), "in_channels": 5, "patch_size": 2}),
        (V2, {"qkv_bias": False}),
        (V2, {"extra_norm_every": 2}),
        (MLP, {}),
    ],
    ids=str,
)
def test_whole_models_have_no_problem(kind, changes):
    assert problems(shapes(kind, **changes), kind) == []


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (V1, {"layers.2.blocks.1.mlp.fc1.bias": None}, "layers.2.blocks.1.mlp.fc1.bias is missing"),
        (V1, {"layers.1.downsample.norm.bias": None}, "layers.1.downsample.norm.bias is missing"),
        (V1, {"patch_embed.norm.bias": None}, "patch_embed.norm.bias is missing, though others"),
        (V1, {"norm1.weight": None}, "norm1.weight is missing, though others of its kind come"),
        (
            V1,
            {"layers.1.blocks.0.attn.qkv.bias": None},
            "layers.1.blocks.0.attn.qkv.bias is missing",
        ),
        (V2, {"layers.2.blocks.1.attn.v_bias": None}, "layers.2.blocks.1.attn.v_bias is missing"),
        (V1, {"layers.3.downsample.norm.bias": (4,)}, "layers.4.blocks.0.norm1.weight is missing"),
        (V1, {"layers.0.blocks.0.attn.q_bias": (12,)}, "attn.q_bias has no place in this model"),
        (V1, {"norm4.bias": (4,)}, "norm4.bias has no place in this model"),
        (V1, {"layers.1.blocks.0.norm1.bias": (12,)}, "norm1.bias is (12,) where (24,) belongs"),
        (V1, {"layers.1.blocks.0.norm1.bias": (24, 1)}, "is (24, 1) where (24,) belongs"),
        (V1, {"layers.2.downsample.reduction.weight": (192, 96)}, "where (96, 192) belongs"),
        (V2, {"layers.0.downsample.norm.weight": (48,)}, "is (48,) where (24,) belongs"),
        (V2, {"layers.2.blocks.1.attn.logit_scale": (2, 1, 1)}, "where (3, 1, 1) belongs"),
        (
            V1,
            {"patch_embed.proj.weight": (12, 48)},
            "patch_embed.proj.weight is (12, 48) where (C, I, P, P) belongs",
        ),
        (
            V1,
            {"layers.1.blocks.0.attn.relative_position_bias_table": (48, 2)},
            "the bias tables of stage 1 have 48 rows, no odd square",
        ),
        (
            V1,
            {"layers.1.blocks.0.attn.relative_position_bias_table": (49, 5)},
            "5 heads do not divide the 24 channels of stage 1",
        ),
        (MLP, {"layers.0.blocks.1.spatial_mlp.bias": (15,)}, "is (15,) where (16,) belongs"),
    ],
)
def test_each_fault_is_told(kind, change, says):
    faulty = {n: s for n, s in {**shapes(kind), **change}.items() if s is not None}
    told = problems(faulty, kind)
    assert any(says in problem for problem in told), told


def test_a_lost_block_leaves_a_gap():
    kept = {n: s for n, s in shapes(V1).items() if not n.startswith("layers.2.blocks.1.")}
    assert "layers.2.blocks.1.norm1.weight is missing" in problems(kept, V1)


def test_a_lost_stage_leaves_a_gap():
    kept = {n: s for n, s in shapes(V1).items() if not n.startswith("layers.1.")}
    assert "layers.1.blocks.0.norm1.weight is missing" in problems(kept, V1)


def test_nothing_is_no_swin():
    assert problems({}, V1) == ["there are no blocks"]
