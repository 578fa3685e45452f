"""Hugging Face's Swins against ours, on weights that were converted."""

import re

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
from swin_dense.errors import InputError

NAMES = {V1: "Swin", V2: "Swinv2"}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def build(kind, what, **changes):
    transformers = peer("transformers")
    sizes = {"embed_dim": WIDTH, "depths": list(DEPTHS), "num_heads": list(HEADS)}
    config = getattr(transformers, NAMES[kind] + "Config")(
        image_size=IMAGE, window_size=WINDOW, **sizes, **changes
    )
    return randomise(getattr(transformers, NAMES[kind] + what)(config))


@pytest.mark.parametrize("kind", [V1, V2])
@torch.no_grad()
def test_same_last_map(kind):
    theirs = build(kind, "Model")
    tokens = theirs(image()).last_hidden_state
    last = tokens.transpose(1, 2).unflatten(2, (IMAGE[0] // 32, IMAGE[1] // 32))
    layout = assert_same_maps(kind, theirs.state_dict(), {3: last})
    assert layout.startswith("Hugging Face transformers")
    assert layout.endswith(kind)
    assert_round_trip(theirs.state_dict())


@torch.no_grad()
def test_same_maps_of_a_backbone():
    theirs = build(V1, "Backbone", out_features=STAGES)
    maps = dict(enumerate(theirs(image()).feature_maps))
    layout = assert_same_maps(V1, theirs.state_dict(), maps)
    assert layout == "Hugging Face transformers 5.x Swin V1 backbone"
    assert_round_trip(theirs.state_dict())


@torch.no_grad()
def test_same_maps_of_a_backbone_of_v2():
    """Its class has no norms, so ours are set to do nothing but norm."""
    theirs = build(V2, "Backbone", out_features=STAGES)
    mine, state = ours(V2), convert(theirs.state_dict()).state
    for stage in range(4):
        state[f"norm{stage}.weight"] = torch.ones(WIDTH * 2**stage)
        state[f"norm{stage}.bias"] = torch.zeros(WIDTH * 2**stage)
    mine.load_state_dict(state, strict=True)
    for got, want in zip(mine(image()), theirs(image()).feature_maps, strict=True):
        want = F.layer_norm(want.movedim(1, -1), want.shape[1:2]).movedim(-1, 1)
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert_round_trip(theirs.state_dict())


@torch.no_grad()
def test_what_version_5_writes_are_the_names_of_version_4(tmp_path):
    theirs = build(V1, "ForImageClassification", num_labels=5)
    theirs.save_pretrained(tmp_path)
    safetensors = pytest.importorskip("safetensors.torch")
    state = safetensors.load_file(tmp_path / "model.safetensors")
    tokens = theirs.swin(image()).last_hidden_state
    last = tokens.transpose(1, 2).unflatten(2, (IMAGE[0] // 32, IMAGE[1] // 32))
    assert assert_same_maps(V1, state, {3: last}) == "Hugging Face transformers 4.x Swin V1"
    assert convert(state).dropped == {
        "classifier.weight": "classification head",
        "classifier.bias": "classification head",
    }


@torch.no_grad()
def test_masked_pre_training_leaves_its_decoder():
    theirs = build(V2, "ForMaskedImageModeling")
    dropped = convert(theirs.state_dict()).dropped
    assert set(dropped) == {"swinv2.embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"}


@torch.no_grad()
def test_exported_weights_compute_the_same_there():
    theirs, mine = build(V1, "Backbone", out_features=STAGES), ours(V1)
    state = export(mine.state_dict(), "Hugging Face transformers 5.x Swin V1 backbone")
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("swin.layernorm.") for name in missing)
    for got, want in zip(mine(image()), theirs(image()).feature_maps, strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


# Names by hand, so that these need no transformers.
FOUR = {
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "embeddings.norm.bias": "patch_embed.norm.bias",
    "encoder.layers.2.blocks.1.layernorm_before.bias": "layers.2.blocks.1.norm1.bias",
    "encoder.layers.2.blocks.1.layernorm_after.bias": "layers.2.blocks.1.norm2.bias",
    "encoder.layers.2.blocks.1.attention.output.dense.bias": "layers.2.blocks.1.attn.proj.bias",
    "encoder.layers.2.blocks.1.intermediate.dense.bias": "layers.2.blocks.1.mlp.fc1.bias",
    "encoder.layers.2.blocks.1.output.dense.bias": "layers.2.blocks.1.mlp.fc2.bias",
    "encoder.layers.2.downsample.reduction.weight": "layers.2.downsample.reduction.weight",
    "layernorm.bias": "norm3.bias",
}
ONE = {
    "encoder.layers.2.blocks.1.attention.self.relative_position_bias_table": (
        "layers.2.blocks.1.attn.relative_position_bias_table"
    ),
}
TWO = {
    "encoder.layers.2.blocks.1.attention.self.logit_scale": "layers.2.blocks.1.attn.logit_scale",
    "encoder.layers.2.blocks.1.attention.self.continuous_position_bias_mlp.2.weight": (
        "layers.2.blocks.1.attn.cpb_mlp.2.weight"
    ),
    "encoder.layers.2.blocks.1.attention.self.query.bias": "layers.2.blocks.1.attn.q_bias",
    "encoder.layers.2.blocks.1.attention.self.value.bias": "layers.2.blocks.1.attn.v_bias",
}


@pytest.mark.parametrize(("kind", "own"), [(V1, ONE), (V2, TWO)])
def test_names_of_version_4(kind, own):
    state = ours(kind, out_indices=(3,)).state_dict()
    version = "4.x" if kind == V1 else "4.x and 5.x"
    theirs = export(state, f"Hugging Face transformers {version} {kind}")
    for name, mine in (FOUR | own).items():
        assert torch.equal(theirs[name], state[mine]), name
    qkv = state["layers.1.blocks.0.attn.qkv.weight"]  # 24 channels
    for third, name in enumerate(("query", "key", "value")):
        weight = theirs[f"encoder.layers.1.blocks.0.attention.self.{name}.weight"]
        assert torch.equal(weight, qkv[24 * third : 24 * third + 24])
    found = convert({f"{NAMES[kind].lower()}.{n}": t for n, t in theirs.items()})
    assert found.state.keys() == state.keys()


def test_a_query_without_its_key_is_refused():
    state = ours(V1, out_indices=(3,)).state_dict()
    theirs = export(state, "Hugging Face transformers 4.x Swin V1")
    del theirs["encoder.layers.1.blocks.0.attention.self.key.weight"]
    says = "of layers.1.blocks.0.attn.qkv.weight one of query, key and value is missing"
    with pytest.raises(InputError, match=says):
        convert(theirs)
    assert not any(re.search(r"\[.\]", name) for name in theirs)
