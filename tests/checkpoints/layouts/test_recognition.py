"""Every layout there and back; what is none, or not a whole one, is refused with the reason."""

import re

import pytest
import torch
from swin_states import MLP, V1, V2, ours, spatial_mlp_state

from swin_dense.checkpoints import names
from swin_dense.checkpoints.architecture import registered
from swin_dense.checkpoints.layouts import UnknownWeightsError, convert, export, heads, known
from swin_dense.errors import InputError

# kind of model around a backbone -> a name that tells it
HEADS = {
    "": None,
    " behind 'backbone.'": None,
    " in a classifier": "head.fc.weight",
    " in masked pre-training": "neck.decoder.0.weight",
    " in a detector": "roi_head.bbox_head.fc_cls.weight",
    " in a segmentor": "decode_head.conv_seg.weight",
    " in DINO's own code": "class_embed.0.weight",
    " in detectron2": "sem_seg_head.predictor.query_feat.weight",
    " in detectron2 with a feature pyramid": "backbone.fpn_lateral2.weight",
}
LAYOUTS = known()
# Of Swins; the test of another architecture asks its own.
BARE = [(a.name, x) for a in registered() if a.name in (V1, V2, MLP) for x in a.layouts]


def our_state(architecture, layout):
    """As much of a backbone of ours as this layout has a place for."""
    if architecture == MLP:
        state = {re.sub(r"^norm\.", "norm3.", n): t for n, t in spatial_mlp_state().items()}
    else:
        state = ours(architecture).state_dict()
    places = " ".join(layout.table.values())
    if "norm{stage}" not in places:
        kept = "norm3." if "norm{last}" in places else "layers"
        state = {n: t for n, t in state.items() if not re.match(r"norm\d", n) or n.startswith(kept)}
    return state


def ids(value):
    return getattr(value, "name", None) or getattr(value, "phrase", "")


# Layouts and kinds of models know nothing of each other: one of each architecture in every kind.
FIRST = dict(reversed(BARE)).items()


@pytest.mark.parametrize(
    ("architecture", "layout", "kind"),
    [(a, layout, heads.KINDS[0]) for a, layout in BARE]
    + [(a, layout, kind) for a, layout in FIRST for kind in heads.KINDS[1:]],
    ids=ids,
)
def test_there_and_back(architecture, layout, kind):
    state, head = our_state(architecture, layout), HEADS[kind.phrase]
    if kind.whole:
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
        state[head] = torch.randn(5, 3)
    theirs = export(state, layout.name + kind.phrase)
    if head and not kind.whole:
        theirs[head] = torch.randn(5, 3)
    for mark in layout.marks:  # what tells it from others may be no weight of ours
        if not any(names.first([kind.prefix + mark], name) for name in theirs):
            mark = kind.prefix + mark.format(any="x.weight", end="weight")
            theirs[mark] = torch.ones(1)
    found = convert(theirs)
    assert (found.layout, found.whole) == (layout.name + kind.phrase, kind.whole)
    assert found.architecture == architecture
    assert (head in found.dropped) == bool(head and not kind.whole)
    assert found.state.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(found.state[name], tensor), name


def test_layouts_have_names_of_their_own():
    assert len(set(LAYOUTS)) == len(LAYOUTS) == sum(len(a.layouts) for a in registered())
    assert len(BARE) >= 20


def test_an_unknown_layout_is_refused():
    with pytest.raises(InputError, match=r"'timm Swin V3'. Did you mean 'timm Swin V\d'\?"):
        export({}, "timm Swin V3")


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (
            "timm Swin V2",
            r"takes a whole Swin V2 under our names, but layers.0.blocks.0.attn.logit.* "
            r"These are weights of Swin V1, choose from: official Swin V1 backbone; ",
        ),
        (
            "official Swin V1 backbone in a detector",
            r"a whole Swin V1 behind 'backbone.' .* there are no blocks",
        ),
    ],
)
def test_only_what_a_layout_is_for_is_exported(layout, says):
    with pytest.raises(InputError, match=says):
        export(ours(V1, out_indices=(3,)).state_dict(), layout)


def test_a_number_where_channels_belong_is_told():
    layout = next(n for n in LAYOUTS if n.startswith("OpenMMLab Swin V1"))
    theirs = export(ours(V1).state_dict(), layout)
    theirs["stages.0.downsample.norm.bias"] = torch.tensor(1.0)
    with pytest.raises(InputError, match=r"layers.0.downsample.norm.bias is \(\) where \(48,\)"):
        convert(theirs)


# --- Weights that are often mistaken ------------------------------------------------------------


def looks_like(found):
    with pytest.raises(UnknownWeightsError) as refusal:
        convert({name: torch.ones(1) for name in found})
    return refusal.value.kind


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
    assert looks_like(["x.weight", name]).startswith(what)


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_swin_looks_like_nothing_else(kind):
    names = list(ours(kind).state_dict())
    assert looks_like(names) == ""
    assert looks_like(["backbone." + name for name in names]) == ""


# --- Refusals ------------------------------------------------------------------------------------


RESNET = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 1, 1), "fc.bias": (5,)}
VIT = {"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4)} | {
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.0.mlp.w12.weight": (42, 8),  # the gated perceptron of DINOv2's largest
}


@pytest.mark.parametrize(
    ("shapes", "what", "first"),
    [
        (RESNET, "a ResNet", "conv1.weight"),
        (VIT, "a plain ViT", "blocks.0.mlp.w12.weight"),
    ],
    ids=["resnet", "vit"],
)
def test_foreign_weights(shapes, what, first):
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with pytest.raises(InputError) as refusal:
        convert(state)
    says = str(refusal.value)
    assert f"no whole backbone in any of the {len(LAYOUTS)} layouts" in says
    assert f"they are of {what}. Nearest is '" in says
    assert f"{first} has no place" in says


@pytest.mark.parametrize(
    ("architecture", "layout", "phrase"),
    [(a, layout, "") for a, layout in BARE if a != MLP]
    + [(a, layout, " in a detector") for a, layout in FIRST if a != MLP],
    ids=ids,
)
@pytest.mark.parametrize(
    "kept", [slice(None, None, 2), slice(None, 60)], ids=["every 2nd", "first"]
)
def test_half_of_a_file(architecture, layout, phrase, kept):
    state = our_state(architecture, layout)
    if phrase:
        state = {f"backbone.{name}": tensor for name, tensor in state.items()}
        state["neck.convs.0.weight"] = torch.randn(5, 3)
    theirs = export(state, layout.name + phrase)
    half = dict(list(theirs.items())[kept])
    with pytest.raises(InputError, match=r" is missing"):
        convert(half)


@pytest.mark.parametrize("kind", [V1, V2])
def test_blocks_of_different_stages_changed_places(kind):
    state = ours(kind).state_dict()
    one, two = "layers.0.blocks.1.", "layers.2.blocks.1."
    swapped = {
        n.replace(one, "?").replace(two, one).replace("?", two): tensor
        for n, tensor in state.items()
    }
    assert swapped.keys() == state.keys()
    with pytest.raises(InputError, match=r"0.blocks.1.norm1.weight is \(48,\) where \(12,\)"):
        convert(swapped)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_tensors(seed):
    state = ours(V1).state_dict()
    order = torch.randperm(len(state), generator=torch.Generator().manual_seed(seed)).tolist()
    tensors = list(state.values())
    with pytest.raises(InputError, match=r"which knows 112 of them, but \S+ is "):
        convert({name: tensors[i] for name, i in zip(state, order, strict=True)})


def test_one_key_too_many_is_named():
    state = {**ours(V1).state_dict(), "layers.0.blocks.0.attn.gate": torch.ones(1)}
    with pytest.raises(InputError, match=r"but layers.0.blocks.0.attn.gate has no place\."):
        convert(state)


def test_one_tensor_under_two_names_is_named():
    state = ours(V1, out_indices=(3,)).state_dict()
    theirs = export(state, "Hugging Face transformers 4.x Swin V1")
    theirs["swin.layernorm.bias"] = theirs["layernorm.bias"]
    with pytest.raises(InputError, match=r"two tensors are norm3.bias"):
        convert(theirs)


def test_nothing_at_all():
    with pytest.raises(
        InputError, match=r"these 0 tensors are no whole backbone .* there are no blocks"
    ):
        convert({})


def test_the_state_given_is_left_alone():
    state = {f"module.{n}": t for n, t in ours(V1).state_dict().items()}
    before = dict(state)
    convert(state)
    assert state == before
