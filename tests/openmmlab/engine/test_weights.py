"""Weight files: no code runs, no half file is left, and what does not fit is told or refused."""

import copy

import pytest
import torch
from conftest import ROOT
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.backbones.swin import Swin
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import weights
from swin_dense.openmmlab.settings import classes
from swin_dense.openmmlab.settings import config as configs

ADVICE = "Ask the sender."


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(weights, "print_log", lambda text, **_: lines.append(text))
    return lines


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({"stem": nn.Linear(3, 5), "head": nn.Linear(5, 2)})


def on_disk(folder, state):
    path = str(folder / "some.pth")
    torch.save(state, path)
    return weights.read(path)


def test_what_fits_is_loaded_and_what_did_not_is_said_once(tmp_path, said):
    module = model()
    kept = module["head"].weight.detach().clone()
    state = {
        "module.stem.weight": torch.full((5, 3), 2.0),
        "module.stem.bias": torch.full((5,), 3.0),
        "module.head.weight": torch.zeros(4, 5),
        "module.extra": torch.zeros(1),
    }
    ledger = weights.load(module, on_disk(tmp_path, state), 0.4, ADVICE)
    assert torch.equal(module["stem"].weight, torch.full((5, 3), 2.0))
    assert torch.equal(module["stem"].bias, torch.full((5,), 3.0))
    assert torch.equal(module["head"].weight, kept)
    assert ledger.share == 0.5  # tensors; of the numbers 20 / 32
    assert set(ledger.lost) == {"head.weight", "head.bias"}
    (report,) = said
    assert "some.pth (sha256 " in report
    assert "loaded: 2 of 4 tensors, 62.5 % of the model's numbers" in report
    assert "another shape in the file: head.weight (10 numbers)" in report
    assert "not in the file: head.bias (2 numbers)" in report
    assert "unused: 1 of the file's tensors" in report
    (record,) = weights.loaded_into(module)
    assert record == ledger.record()


def test_too_little_is_refused_and_changes_nothing(tmp_path, said):
    module = model()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    checkpoint = on_disk(tmp_path, {"stem.weight": torch.zeros(5, 3)})
    with pytest.raises(InputError, match=rf"(?s)some\.pth .*95%.*25 %.*{ADVICE} .*`allow_missing`"):
        weights.load(module, checkpoint, weights.START, ADVICE)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not said
    assert weights.loaded_into(module) == []


def test_what_is_allowed_by_name_may_be_missing(tmp_path, said):
    checkpoint = on_disk(tmp_path, {"stem.weight": torch.ones(5, 3), "stem.bias": torch.ones(5)})
    ledger = weights.load(model(), checkpoint, weights.START, ADVICE, allowed=["head"])
    assert ledger.share == 1
    assert "at random, allowed by name: head (2 tensors, 12 numbers)" in said[0]


def scaled(state, factor):
    return {name: torch.full_like(tensor, factor) for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": {**state, "classifier.weight": torch.ones(7, 2)}},
        lambda state: {"state_dict": {f"backbone.{n}": t for n, t in state.items()}},
        lambda state: {"model": {f"backbone.{n}": t for n, t in state.items()}},
        lambda state: {
            "state_dict": {
                **{f"backbone.{n}": t for n, t in state.items()},
                "neck.stem.weight": torch.ones(5, 3),
                "stem.weight": torch.ones(5, 3),  # not the backbone's
            }
        },
        lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items()}},
    ],
)
def test_pretrained_in_every_wrapping(tmp_path, said, wrap):
    backbone, path = model(), str(tmp_path / "pretrained.pth")
    torch.save(wrap(scaled(backbone.state_dict(), 4.0)), path)
    ledger = weights.load_pretrained(backbone, path)
    assert ledger.share == 1
    assert all((tensor == 4).all() for tensor in backbone.state_dict().values())
    assert len(said) == 1


def test_pretrained_of_a_distributed_detector(tmp_path, said):
    backbone, path = model(), str(tmp_path / "pretrained.pth")
    state = scaled(backbone.state_dict(), 4.0)
    torch.save({"state_dict": {f"module.backbone.{n}": t for n, t in state.items()}}, path)
    assert weights.load_pretrained(backbone, path).share == 1


def test_a_single_lost_layer_of_many_is_said(tmp_path, said):
    """A few missing tensors of very many pass, as files of others lack odd ones; never unsaid."""
    backbone = nn.ModuleList(nn.Linear(2, 2) for _ in range(20))
    state = backbone.state_dict()
    del state["7.bias"]
    torch.save(state, tmp_path / "w.pth")
    assert weights.load_pretrained(backbone, str(tmp_path / "w.pth")).share == 39 / 40
    assert "at random, not in the file: 7.bias (2 numbers)" in said[0]
    for number in (1, 2):
        del state[f"{number}.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"(?s)95% .*92\.5 %.*same architecture"):
        weights.load_pretrained(backbone, str(tmp_path / "w.pth"))


def test_all_bias_tables_lost_is_too_much_though_their_numbers_are_few(tmp_path, said):
    backbone = Swin("tiny")
    state = {n: t for n, t in backbone.state_dict().items() if "bias_table" not in n}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"attn.relative_position_bias_table|attn \(12 tensors"):
        weights.load_pretrained(backbone, str(tmp_path / "w.pth"))


class Part(BaseModule):
    def __init__(self, **init_cfg):
        super().__init__(init_cfg=dict(type="Pretrained", **init_cfg))
        self.stem = nn.Linear(3, 5)


def test_init_cfg_goes_the_same_way(tmp_path, said):
    state = scaled(Part().state_dict(), 6.0)
    path = str(tmp_path / "w.pth")
    torch.save({"deep.er." + n: t for n, t in state.items()}, path)
    part = Part(checkpoint=path, prefix="deep.er")
    part.init_weights()
    assert all((tensor == 6).all() for tensor in part.state_dict().values())
    (record,) = weights.loaded_into(nn.Sequential(part))
    assert record["file"] == path
    assert [path in line for line in said] == [True]
    with pytest.raises(InputError, match=r"nothing in .* is called other\.\*"):
        Part(checkpoint=path, prefix="other").init_weights()
    with pytest.raises(InputError, match="Is the init_cfg of Part meant for this file"):
        Part(checkpoint=path).init_weights()
    Part(checkpoint=path, allow_missing=["stem"]).init_weights()


def test_a_name_like_one_of_the_authors_gets_a_hint():
    with pytest.raises(InputError, match=r"Did you mean 'swin_tiny_patch4_window7_224'\?"):
        weights.read("swin_tiny_patch4_window7_22")


HEADS = {
    "mask_rcnn_swin_nano": {
        "roi_head.bbox_head.fc_cls.weight",
        "roi_head.bbox_head.fc_cls.bias",
        "roi_head.bbox_head.fc_reg.weight",
        "roi_head.bbox_head.fc_reg.bias",
        "roi_head.mask_head.conv_logits.weight",
        "roi_head.mask_head.conv_logits.bias",
    },
    "upernet_swin_nano": {
        f"{head}.conv_seg.{end}"
        for head in ("decode_head", "auxiliary_head")
        for end in ("weight", "bias")
    },
    "dino_swin_t": {
        "dn_query_generator.label_embedding.weight",
        *(f"bbox_head.cls_branches.{i}.{end}" for i in range(7) for end in ("weight", "bias")),
    },
    "mask2former_swin_t": {"panoptic_head.cls_embed.weight", "panoptic_head.cls_embed.bias"},
}


@pytest.mark.parametrize("name", HEADS)
def test_layers_of_classes_are_found(name):
    config = configs.load(ROOT / f"configs/{name}.py")
    classes.set_classes(config, ("a", "b", "c"))
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        built = MODELS.build(copy.deepcopy(config.model))  # some detectors change it
    assert weights.class_layers(config, built) == HEADS[name]


def test_layers_of_classes_are_found_on_a_backbone_that_computes_in_its_constructor(tmp_path):
    """mmdet's Swin takes its drop path rates as numbers out of a tensor."""
    fragments = ("retinanet", "coco_detection_800", "adamw", "schedule_1x")
    path = tmp_path / "other.py"
    path.write_text(
        f"_base_ = {[str(ROOT / f'configs/_base_/{name}.py') for name in fragments]}\n"
        "model = dict(backbone=dict(type='mmdet.SwinTransformer', embed_dims=24,\n"
        "                           depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8)))\n"
    )
    config = configs.load(path)
    classes.set_classes(config, ("a", "b", "c"))
    init_default_scope(config.default_scope)
    built = MODELS.build(copy.deepcopy(config.model))
    expected = {"bbox_head.retina_cls.weight", "bbox_head.retina_cls.bias"}
    assert weights.class_layers(config, built) == expected


def test_class_names_wherever_they_are_stored():
    stored = {"meta": {"dataset_meta": {"classes": ["a", "b"]}}}
    assert weights.class_names(stored) == ("a", "b")
    assert weights.class_names({"meta": {"classes": ["c"]}}) == ("c",)
    assert weights.class_names({"meta": {"CLASSES": ("d",)}}) == ("d",)
    assert weights.class_names({"meta": {"dataset_meta": {"CLASSES": ("e",)}}}) == ("e",)
    for nothing in ({}, {"meta": None}, {"meta": {"dataset_meta": None}}):
        assert weights.class_names(nothing) is None


@pytest.mark.parametrize("ordered", [False, True])
def test_other_classes_are_listed_on_both_sides(ordered):
    weights.require_classes(("a", "b"), ("a", "b"), "some.pth", ordered)
    with pytest.raises(InputError, match=r"3 classes, .* has 2\. .*\['b', 'c'\].*\['d'\]"):
        weights.require_classes(("a", "b", "c"), ("a", "d"), "some.pth", ordered)


def test_another_order_counts_where_values_carry_no_names():
    weights.require_classes(("a", "b"), ("b", "a"), "some.pth", ordered=False)
    with pytest.raises(InputError, match=r"(?s)another order.*\['a', 'b'\].*\['b', 'a'\]"):
        weights.require_classes(("a", "b"), ("b", "a"), "some.pth", ordered=True)
