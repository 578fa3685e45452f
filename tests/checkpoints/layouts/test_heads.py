"""Whole detectors and segmentors: mmdet's and mmseg's against ours, the authors' by their names."""

from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from swin_states import (
    V1,
    V2,
    WINDOW,
    assert_round_trip,
    ours,
    randomise,
)

import swin_dense.openmmlab  # noqa: F401  so that mmdet imports without compiled ops
from swin_dense.checkpoints.layouts import convert, export, known
from swin_dense.openmmlab.settings.config import load
from swin_dense.registry import MODELS

MMLAB = "OpenMMLab Swin V1 backbone (mmdet 3.x, mmseg 1.x, mmpretrain)"
ROOT = Path(__file__).parents[3]
SIZES = {"depths": (2, 1, 3, 1), "num_heads": (1, 2, 4, 8), "window_size": WINDOW}


def pair(name, scope):
    """A model with our backbone and one with theirs, of one config."""
    pytest.importorskip(scope)
    models = []
    for backbone in (
        {"type": "swin_dense.Swin", "embed_dim": 24, **SIZES},
        {"type": f"{scope}.SwinTransformer", "embed_dims": 24, **SIZES},
    ):
        config = load(ROOT / f"configs/{name}.py")
        config.model.backbone = backbone
        init_default_scope(config.default_scope)
        model = MODELS.build(config.model)
        model.eval()
        models.append(model)
    mine, theirs = models
    randomise(theirs)
    theirs.eval()
    return mine, theirs


def close(ours, theirs):
    assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


@torch.no_grad()
def test_a_whole_mask_rcnn():
    mine, theirs = pair("mask_rcnn_swin_nano", "mmdet")
    found = convert(theirs.state_dict())
    assert (found.layout, found.whole) == (f"{MMLAB} in a detector", True)
    mine.load_state_dict(found.state, strict=True)
    assert_round_trip(theirs.state_dict())

    image = torch.randn(2, 3, 128, 96)
    rois = torch.tensor([[0, 3.0, 5.0, 60.0, 70.0], [1, 30.0, 8.0, 90.0, 120.0]])
    seen = []
    for model in (mine, theirs):
        maps = model.extract_feat(image)
        scores, deltas = model.rpn_head(maps)
        boxes = model.roi_head._bbox_forward(maps, rois)
        masks = model.roi_head._mask_forward(maps, rois)
        outputs = [*maps, *scores, *deltas, boxes["cls_score"], boxes["bbox_pred"]]
        seen.append([*outputs, masks["mask_preds"]])
    for got, want in zip(*seen, strict=True):
        close(got, want)


@torch.no_grad()
def test_a_whole_upernet():
    mine, theirs = pair("upernet_swin_nano", "mmseg")
    found = convert(theirs.state_dict())
    assert (found.layout, found.whole) == (f"{MMLAB} in a segmentor", True)
    mine.load_state_dict(found.state, strict=True)
    assert_round_trip(theirs.state_dict())
    image = torch.randn(2, 3, 128, 96)
    for head in ("decode_head", "auxiliary_head"):
        got, want = (getattr(m, head)(m.extract_feat(image)) for m in (mine, theirs))
        close(got, want)


# Of SwinTransformer/Swin-Transformer-Object-Detection and -Semantic-Segmentation: configs/swin,
# models/roi_heads, models/dense_heads, models/decode_heads.
MASK_RCNN = (
    "neck.lateral_convs.0.conv.weight",
    "neck.fpn_convs.3.conv.bias",
    "rpn_head.rpn_conv.weight",
    "rpn_head.rpn_cls.bias",
    "rpn_head.rpn_reg.bias",
    "roi_head.bbox_head.fc_cls.weight",
    "roi_head.bbox_head.shared_fcs.0.weight",
    "roi_head.mask_head.convs.0.conv.weight",
    "roi_head.mask_head.upsample.weight",
    "roi_head.mask_head.conv_logits.bias",
)
CASCADE = (
    "roi_head.bbox_head.2.shared_convs.3.bn.running_var",
    "roi_head.bbox_head.0.shared_fcs.0.bias",
    "roi_head.mask_head.1.convs.3.conv.bias",
)
UPERNET = (
    "decode_head.conv_seg.weight",
    "decode_head.psp_modules.3.1.conv.weight",
    "decode_head.psp_modules.0.1.bn.running_mean",
    "decode_head.bottleneck.bn.num_batches_tracked",
    "decode_head.lateral_convs.2.conv.weight",
    "decode_head.fpn_convs.0.bn.weight",
    "decode_head.fpn_bottleneck.conv.weight",
    "auxiliary_head.convs.0.conv.weight",
    "auxiliary_head.conv_seg.bias",
)


@pytest.mark.parametrize(
    ("heads", "layout"),
    [
        (MASK_RCNN, "official Swin V1 backbone in a detector"),
        (MASK_RCNN + CASCADE, "official Swin V1 backbone in a detector"),
        (UPERNET, "official Swin V1 backbone in a segmentor"),
    ],
    ids=["mask rcnn", "cascade", "upernet"],
)
def test_files_of_the_authors(heads, layout):
    backbone = {f"backbone.{n}": t for n, t in ours(V1).state_dict().items()}
    index = "backbone.layers.{}.blocks.0.attn.relative_position_index"
    buffers = {index.format(stage): torch.ones(16, 16) for stage in range(4)}
    state = {**backbone, **buffers, **{name: torch.randn(3) for name in heads}}
    found = convert(state)
    assert (found.layout, found.whole) == (layout, True)
    assert found.state.keys() == {*backbone, *heads}
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state.items())
    assert set(found.dropped) == set(buffers)
    assert_round_trip(state)


@pytest.mark.parametrize("kind", [V1, V2])
@pytest.mark.parametrize(("heads", "what"), [(MASK_RCNN, "detector"), (UPERNET, "segmentor")])
def test_our_own(kind, heads, what):
    state = {f"backbone.{n}": t for n, t in ours(kind).state_dict().items()}
    state |= {name: torch.randn(3) for name in heads}
    found = convert(state)
    assert (found.layout, found.whole) == (f"official {kind} backbone in a {what}", True)
    assert found.state.keys() == state.keys()
    layout = next(n for n in known() if n.startswith(f"OpenMMLab {kind}")) + f" in a {what}"
    theirs = export(state, layout)
    assert heads[0] in theirs
    back = convert(theirs)
    assert back.layout == layout
    assert all(torch.equal(back.state[name], tensor) for name, tensor in state.items())


def test_heads_of_mmdet_are_those_its_detectors_have():
    """Also of the family of DETR, whose parts lie beside the head."""
    pytest.importorskip("mmdet")
    state = {f"backbone.{n}": t for n, t in ours(V1).state_dict().items()}
    for part in ("encoder.layers.0.norms.0.weight", "decoder.norm.bias", "level_embed"):
        state[part] = torch.ones(3)
    state |= {
        "bbox_head.cls_branches.0.weight": torch.ones(3),
        "query_embedding.weight": torch.ones(3),
    }
    assert convert(state).layout == "official Swin V1 backbone in a detector"


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_backbone_cut_out_of_a_model_is_bare(kind):
    model = ours(kind)
    found = convert({f"backbone.{n}": t for n, t in model.state_dict().items()})
    assert (found.layout, found.whole) == (
        f"official {kind} backbone behind 'backbone.'",
        False,
    )
    model.load_state_dict(found.state, strict=True)


# As mask2former/maskformer_model.py and detectron2's GeneralizedRCNN call their parts.
OF_DETECTRON2 = {
    ("backbone.", "official Swin V1 backbone in detectron2"): (
        "sem_seg_head.pixel_decoder.input_proj.0.0.weight",
        "sem_seg_head.predictor.query_feat.weight",
        "criterion.empty_weight",
    ),
    ("backbone.bottom_up.", "official Swin V1 backbone in detectron2 with a feature pyramid"): (
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_output5.bias",
        "proposal_generator.rpn_head.conv.weight",
        "roi_heads.box_predictor.cls_score.weight",
        "pixel_mean",
    ),
}
# As DINO's authors call its parts (models/dino/dino.py), whose backbone stands in a sequence.
OF_DINO = {
    ("backbone.0.", "official Swin V1 backbone in DINO's own code"): (
        "transformer.decoder.class_embed.0.bias",
        "transformer.level_embed",
        "input_proj.0.0.weight",
        "label_enc.weight",
        "bbox_embed.0.layers.0.weight",
        "class_embed.0.bias",
    ),
}
PLACES = OF_DETECTRON2 | OF_DINO


@pytest.mark.parametrize(("place", "heads"), PLACES.items(), ids=["mask2former", "pyramid", "dino"])
def test_the_backbone_is_taken_out(place, heads):
    prefix, layout = place
    model = ours(V1)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    buffer = prefix + "layers.0.blocks.0.attn.relative_position_index"
    found = convert(state | {name: torch.ones(3) for name in (*heads, buffer)})
    assert (found.layout, found.whole) == (layout, False)
    model.load_state_dict(found.state, strict=True)
    assert set(found.dropped) == {*heads, buffer}
    assert found.dropped[heads[0]].startswith(("a head of detectron2's", "a part of DINO"))


def test_a_classification_file_for_detectron2_is_the_authors():
    state = {
        n.replace("norm3.", "norm."): t for n, t in ours(V1, out_indices=(3,)).state_dict().items()
    }
    assert convert(state).layout == "official Swin V1 classification"
