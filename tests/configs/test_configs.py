"""Every config: it loads, it builds, each of its keys is read, and it is what the authors train."""

import inspect
import runpy

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab import config as configs
from swin_dense.openmmlab import data
from swin_dense.registry import DATASETS, METRICS

LEAVES = sorted((ROOT / "configs").glob("*.py"))
FRAGMENTS = sorted((ROOT / "configs/_base_").glob("*.py"))
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@pytest.fixture(scope="module", params=LEAVES, ids=lambda path: path.stem)
def loaded(request):
    """A config and its model on the meta device: shapes and names without numbers."""
    config = configs.load(request.param)
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return config, MODELS.build(config.model)


def by_name(name):
    config = configs.load(ROOT / f"configs/{name}.py")
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return config, MODELS.build(config.model)


def test_there_are_configs():
    assert len(LEAVES) >= 4
    assert len(FRAGMENTS) >= 5


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_it_builds_on_the_processor(path):
    config = configs.load(path)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    assert all(p.device.type == "cpu" for p in model.parameters())


# Keys.


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_section_is_read(path):
    """mmengine's runner reads its arguments; "data" is ours. No leftovers of the fragments."""
    read = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
    assert set(Config.fromfile(str(path))) <= read | {"data"}


def taken(kind):
    """Names a class takes, its parents' too where it passes the rest on."""
    names = set()
    for parent in inspect.getmro(kind):
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters
        names |= set(parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return names


def unread(registry, node):
    """Keys of a config node that its class does not take."""
    return set(node) - {"type"} - taken(registry.get(node["type"]))


def test_every_key_of_the_loaders_is_read(loaded):
    config, _ = loaded
    ours = {"dataset", "sampler", "batch_sampler"}
    known = set(inspect.signature(torch.utils.data.DataLoader).parameters) | ours
    for name in LOADERS:
        loader = config[name]
        assert set(loader) <= known
        assert not unread(DATASETS, loader.dataset)
        Compose(loader.dataset.pipeline)  # raises for an argument that a step does not take


def test_every_key_of_the_rest_is_read(loaded):
    config, _ = loaded
    for name in ("val_evaluator", "test_evaluator"):
        assert not unread(METRICS, config[name])
    for hook in config.default_hooks.values():
        assert not unread(HOOKS, hook)
    for part in config.param_scheduler:
        known = taken(PARAM_SCHEDULERS.get(part.type)) | {"convert_to_iter_based"}
        assert set(part) - {"type"} <= known
    assert set(config.optim_wrapper) <= {"type", "optimizer", "paramwise_cfg", "clip_grad"}


# What it trains.


def test_channels_are_those_the_backbone_announces(loaded):
    config, model = loaded
    announced = list(model.backbone.out_channels)
    if data.is_segmentation(config):
        heads = (config.model.decode_head, config.model.auxiliary_head)
        for head in heads:
            places = head.in_index
            expected = (
                [announced[i] for i in places] if isinstance(places, list) else announced[places]
            )
            assert head.in_channels == expected
    else:
        assert list(config.model.neck.in_channels) == announced
        strides = list(model.backbone.out_strides)
        assert config.model.roi_head.bbox_roi_extractor.featmap_strides == strides
        assert config.model.roi_head.mask_roi_extractor.featmap_strides == strides
        assert config.model.rpn_head.anchor_generator.strides[:4] == strides


def decays(config, model):
    """Name of each parameter -> its weight decay."""
    model = revert_sync_batchnorm(model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    name_of = {id(p): name for name, p in model.named_parameters()}
    found = {
        name_of[id(p)]: group["weight_decay"]
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found.keys() == set(name_of.values())
    return found


def norm_parameters(module, prefix=""):
    return {
        f"{prefix}{name}.{key}"
        for name, part in module.named_modules()
        if isinstance(part, NORMS)
        for key, _ in part.named_parameters(recurse=False)
    }


def test_norms_and_position_tables_of_the_backbone_do_not_decay(loaded):
    config, model = loaded
    found = decays(config, model)
    free = norm_parameters(model.backbone, "backbone.")
    free |= {n for n in found if n.endswith(("position_bias_table", "absolute_pos_embed"))}
    assert len(free) > 30
    assert {name: found[name] for name in free} == dict.fromkeys(free, 0.0)
    whole = config.optim_wrapper.optimizer.weight_decay
    rest = {n for n in found if n.startswith("backbone.")} - free
    assert {name: found[name] for name in rest} == dict.fromkeys(rest, whole)
    assert whole > 0


def test_batch_norms_of_heads_decay_as_in_the_authors_configs(loaded):
    config, model = loaded
    found = decays(config, model)
    rest = {name for name in norm_parameters(model) if not name.startswith("backbone.")}
    whole = config.optim_wrapper.optimizer.weight_decay
    assert {found[name] for name in rest} <= {whole}


def millions(model):
    return sum(p.numel() for p in model.parameters()) / 1e6


def test_mask_rcnn_has_the_authors_number_of_parameters():
    assert round(millions(by_name("mask_rcnn_swin_t")[1])) == 48


def test_upernet_has_the_authors_number_of_parameters():
    assert round(millions(by_name("upernet_swin_t")[1])) == 60


def test_the_papers_schedules():
    """arXiv 2103.14030, appendices A2.2 and A2.3."""
    config, _ = by_name("mask_rcnn_swin_t")
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (36, 2)
    assert config.param_scheduler[1].milestones == [27, 33]
    config, model = by_name("upernet_swin_t")
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 6e-5, 0.01)
    warm_up, decay = config.param_scheduler
    assert (warm_up.end, decay.begin, decay.end, decay.power) == (1500, 1500, 160000, 1.0)
    assert config.train_cfg.max_iters == 160000
    assert model.backbone.layers[3].blocks[1].drop_path.rate == pytest.approx(0.3)


# Fragments.


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_no_fragment_names_a_backbone(path):
    content = {k: v for k, v in runpy.run_path(str(path)).items() if not k.startswith("__")}
    assert "backbone" not in content.get("model", {})
    assert "Swin" not in repr(content)
    assert "pretrained" not in content
    assert not [name for name in content if name.startswith("_")]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_leaf_holds_a_backbone_and_only_differences(path):
    content = {k: v for k, v in runpy.run_path(str(path)).items() if not k.startswith("__")}
    assert content["model"]["backbone"]["type"] == "swin_dense.Swin"
    assert not [name for name in content if name in LOADERS]
    assert all((path.parent / base).is_file() for base in content["_base_"])


def test_every_fragment_is_used():
    used = set()
    for path in LEAVES:
        used |= {(path.parent / base).resolve() for base in runpy.run_path(str(path))["_base_"]}
    assert used == {path.resolve() for path in FRAGMENTS}
