"""Weights of other networks are called by their name; a Swin's are not."""

import pytest
from swin_states import V1, V2, ours

from swin_dense.checkpoints.layouts import foreign


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("layer1.0.conv1.weight", "a ResNet"),
        ("backbone.layer3.5.conv2.weight", "a ResNet"),
        ("blocks.11.attn.qkv.weight", "a plain ViT"),
        ("vit.encoder.layer.0.attention.attention.query.weight", "a plain ViT"),
        ("stages.2.8.dwconv.weight", "a ConvNeXt"),
        ("backbone.stages.0.1.depthwise_conv.weight", "a ConvNeXt"),
        ("stages.1.blocks.0.conv_dw.weight", "a ConvNeXt"),
        ("stages.0.blocks.0.attn.meta_mlp.fc1.weight", "timm's swinv2_cr"),
        ("layers.2.blocks.1.mlp._moe_layer.experts.batched_fc1_w", "a Swin with experts"),
    ],
)
def test_kinds(name, what):
    assert foreign.kind(["x.weight", name]).startswith(what)


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_swin_is_not_foreign(kind):
    names = list(ours(kind).state_dict())
    assert foreign.kind(names) is None
    assert foreign.kind(["backbone." + name for name in names]) is None
