"""Mask2Former's configs beside those of mmdet and mmseg, and beside the paper."""

from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.settings import config as configs

SIZES, TASKS = ("t", "s", "b", "l"), ("", "_panoptic", "_ade20k")
ALL = [f"mask2former_swin_{size}{task}" for task in TASKS for size in SIZES]
# Ours -> theirs: the heads, the matching and the optimizer are to be the same.
REFERENCES = {
    "mask2former_swin_t": "mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py",
    "mask2former_swin_s": "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py",
    "mask2former_swin_t_panoptic": "mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py",
    "mask2former_swin_s_panoptic": "mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py",
    "mask2former_swin_b_panoptic": (
        "mask2former_swin-b-p4-w12-384-in21k_8xb2-lsj-50e_coco-panoptic.py"
    ),
    "mask2former_swin_l_panoptic": (
        "mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic.py"
    ),
    "mask2former_swin_t_ade20k": "mask2former_swin-t_8xb2-160k_ade20k-512x512.py",
    "mask2former_swin_s_ade20k": "mask2former_swin-s_8xb2-160k_ade20k-512x512.py",
    "mask2former_swin_b_ade20k": (
        "mask2former_swin-b-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py"
    ),
    "mask2former_swin_l_ade20k": (
        "mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py"
    ),
}


def built(config):
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return MODELS.build(config.model)


def head_of(model):
    return model.decode_head if hasattr(model, "decode_head") else model.panoptic_head


def rules(config, model):
    """Name of each parameter -> its learning rate and weight decay."""
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    name_of = {id(p): name for name, p in model.named_parameters()}
    found = {
        name_of[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found.keys() == set(name_of.values())
    return found


@pytest.fixture(scope="module", params=REFERENCES)
def pair(request):
    """Our config and theirs, each with its model."""
    ours = configs.load(ROOT / f"configs/{request.param}.py")
    library = mmseg if "ade20k" in request.param else mmdet
    path = Path(library.__path__[0]) / ".mim/configs/mask2former" / REFERENCES[request.param]
    if not path.is_file():
        pytest.skip(f"this {library.__name__} came without its configs ({path})")
    theirs = Config.fromfile(str(path))
    theirs.setdefault("default_scope", "mmseg" if library is mmseg else "mmdet")
    theirs.model.backbone = ours.model.backbone  # theirs is not made for the meta device
    return ours, built(ours), theirs, built(theirs)


def test_heads_have_the_same_parameters(pair):
    _, ours, _, theirs = pair

    def shapes(model):
        return {name: tuple(t.shape) for name, t in head_of(model).state_dict().items()}

    assert shapes(ours) == shapes(theirs)


def test_losses_and_matching_are_the_same(pair):
    _, ours, _, theirs = pair
    ours, theirs = head_of(ours), head_of(theirs)
    for name in ("loss_cls", "loss_mask", "loss_dice"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert type(one) is type(other)
        settings = [
            {k: v for k, v in vars(part).items() if isinstance(v, int | float | str | list)}
            for part in (one, other)
        ]
        assert settings[0] == settings[1]
        assert settings[0]["loss_weight"] in (2.0, 5.0)
    assert ours.class_weight == theirs.class_weight
    assert ours.train_cfg == theirs.train_cfg
    for name in ("num_points", "oversample_ratio", "importance_sample_ratio", "num_queries"):
        assert getattr(ours, name) == getattr(theirs, name)
    dropped = [m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)]
    assert set(dropped) == {0.0}


def test_fusion_and_preprocessing_are_the_same(pair):
    config, ours, reference, theirs = pair
    for key in ("mean", "std", "bgr_to_rgb", "seg_pad_value", "size"):
        stated = config.model.data_preprocessor.get(key)
        assert stated in (None, reference.model.data_preprocessor.get(key))
    if not hasattr(ours, "panoptic_fusion_head"):
        return
    fusion, reference_fusion = ours.panoptic_fusion_head, theirs.panoptic_fusion_head
    expected = dict(reference_fusion.test_cfg, object_mask_thr=0.8)  # its value by itself
    expected.pop("semantic_on")
    if expected["panoptic_on"]:
        expected["instance_on"] = False  # needs a second annotation file
    assert dict(fusion.test_cfg) == expected
    for name in ("num_things_classes", "num_stuff_classes"):
        assert getattr(fusion, name) == getattr(reference_fusion, name)


def test_every_parameter_of_the_head_learns_as_theirs(pair):
    config, ours, reference, theirs = pair
    found, expected = (
        {n: rule for n, rule in rules(c, m).items() if not n.startswith("backbone.")}
        for c, m in ((config, ours), (reference, theirs))
    )
    assert found == expected
    assert config.optim_wrapper.clip_grad == reference.optim_wrapper.clip_grad


@pytest.mark.parametrize("name", ALL)
def test_rates_and_decays_by_kind(name):
    """By hand. The level encoding of the pixel decoder decays, as in the authors' code."""
    config = configs.load(ROOT / f"configs/{name}.py")
    seen = set()
    for parameter, found in rules(config, built(config)).items():
        inside = parameter.startswith("backbone.")
        last = parameter.split(".")[-2]
        still = (
            "norm" in parameter
            or (inside and parameter.endswith("bias"))
            or last == "gn"
            or parameter.endswith("relative_position_bias_table")
            or last in ("query_embed", "query_feat", "level_embed")
        )
        expected = (1e-5 if inside else 1e-4, 0.0 if still else 0.05)
        assert found == pytest.approx(expected), parameter
        seen.add((inside, still))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mask2former_swin_t_panoptic", 47),
        ("mask2former_swin_s_panoptic", 69),
        ("mask2former_swin_b_panoptic", 107),
        ("mask2former_swin_l_panoptic", 216),
        ("mask2former_swin_t", 47),
        ("mask2former_swin_s", 69),
        ("mask2former_swin_l", 216),
        ("mask2former_swin_t_ade20k", 47),
        ("mask2former_swin_s_ade20k", 69),
        ("mask2former_swin_b_ade20k", 107),
        ("mask2former_swin_l_ade20k", 215),  # 100 queries
    ],
)
def test_numbers_of_parameters(name, millions):
    """arXiv 2112.01527, tables 1, 2 and 3."""
    model = built(configs.load(ROOT / f"configs/{name}.py"))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)


@pytest.mark.parametrize("name", ALL)
def test_recipes(name):
    config = configs.load(ROOT / f"configs/{name}.py")
    large, ade = "_swin_l" in name, name.endswith("ade20k")
    light = "_swin_t" in name or "_swin_s" in name
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert config.optim_wrapper.clip_grad.max_norm == 0.01
    (schedule,) = config.param_scheduler
    if ade:
        assert (schedule.type, schedule.power, schedule.end) == ("PolyLR", 0.9, 160000)
        assert config.train_cfg.max_iters == 160000
        side = 512 if light else 640
        assert config.model.data_preprocessor.size == (side, side)
        steps = {step["type"]: step for step in config.train_dataloader.dataset.pipeline}
        assert steps["RandomCrop"].crop_size == (side, side)
        assert steps["RandomResize"].scale == (4 * side, side)
        assert config.val_dataloader.dataset.pipeline[1].scale == (4 * side, side)
    else:
        assert config.train_cfg.max_iters == schedule.end == (737500 if large else 368750)
        assert schedule.milestones == ([655556, 710184] if large else [327778, 355092])
        sides = {
            step["type"]: step.get("crop_size", step.get("size", step.get("scale")))
            for step in config.train_dataloader.dataset.pipeline
        }
        for step in ("RandomResize", "RandomCrop", "Pad"):
            assert sides[step] == (1024, 1024)
        assert config.val_dataloader.dataset.pipeline[1].scale == (1333, 800)
    head = config.model.get("panoptic_head") or config.model.decode_head
    assert head.num_queries == (200 if large and not ade else 100)
    backbone = config.model.backbone
    assert backbone.drop_path_rate == 0.3
    assert backbone.get("window_size", 7) == (7 if light else 12)
    text = (ROOT / f"configs/{name}.py").read_text()
    assert name in text
    assert ("_22k.pth" in text) == (not light)
