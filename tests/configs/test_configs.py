"""Every config: it loads, it builds, each of its keys is read, and it is what the authors train."""

import copy
import functools
import inspect
import re
import runpy
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from peers import peer_of
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.backbones.backbone import Backbone
from swin_dense.openmmlab.settings import channels
from swin_dense.openmmlab.settings import config as configs
from swin_dense.registry import DATASETS, METRICS

LEAVES = sorted((ROOT / "configs").glob("*.py"))
FRAGMENTS = sorted((ROOT / "configs/_base_").glob("*.py"))
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@functools.cache
def made(path):
    """A config and its model on the meta device: shapes and names without numbers; to be read."""
    peer_of(path)
    config = configs.load(path)
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return config, MODELS.build(copy.deepcopy(config.model))  # mmdet writes into it


@pytest.fixture(params=LEAVES, ids=lambda path: path.stem, scope="module")
def loaded(request):
    config, model = made(request.param)
    init_default_scope(config.default_scope)
    return config, model


def by_name(name):
    config, model = made(ROOT / f"configs/{name}.py")
    init_default_scope(config.default_scope)
    return config, model


def test_there_are_configs():
    assert len(LEAVES) >= 4
    assert len(FRAGMENTS) >= 5


# Keys.


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_every_section_is_read(path):
    """mmengine's runner reads its arguments; "data" is ours. No leftovers of the fragments."""
    known = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
    others = {"custom_imports", "train_pipeline", "test_pipeline"}  # of mmengine; mmseg's inference
    assert set(read(path)) <= known | others | {"data"}


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
    known = {"type", "constructor", "optimizer", "paramwise_cfg", "clip_grad"}
    assert set(config.optim_wrapper) <= known


# What it trains.


def test_channels_are_those_the_backbone_announces(loaded):
    config, model = loaded
    announced = list(model.backbone.out_channels)
    first = "neck" if "neck" in config.model else "panoptic_head"
    parts = [config.model[n] for n in (first, "decode_head", "auxiliary_head") if n in config.model]
    assert parts
    for part in parts:
        taker = part[0] if isinstance(part, list) else part
        if "embed_dim" in taker:  # mmseg's pyramid of a plain ViT
            assert {taker.embed_dim} == set(announced)
            continue
        places = taker.get("in_index", list(range(len(announced))))
        expected = [announced[i] for i in places] if isinstance(places, list) else announced[places]
        assert taker.in_channels == expected


def nodes(tree):
    """Every dict in a config."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    for part in tree if isinstance(tree, list | tuple) else ():
        yield from nodes(part)


def test_strides_are_those_the_backbone_announces(loaded):
    config, model = loaded
    announced = list(model.backbone.out_strides)
    if len(set(announced)) == 1:  # of a plain ViT, of which a neck makes a pyramid
        announced = [announced[0] * share // 4 for share in (1, 2, 4, 8)]
    for node in nodes(config.model):
        for key in node.keys() & set(channels.STRIDES):
            stated = list(node[key])
            alone = len(stated) == 1 and stated[0] in announced  # of maps joined into one
            assert alone or stated[: len(announced)] == announced


def rules(config, model):
    """Name of each parameter -> its learning rate and weight decay."""
    model = revert_sync_batchnorm(model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    name_of = {id(p): name for name, p in model.named_parameters()}
    found = {
        name_of[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert found.keys() == {name_of[id(p)] for p in model.parameters() if p.requires_grad}
    return found


def decays(config, model):
    """Name of each parameter -> its weight decay."""
    return {name: decay for name, (_, decay) in rules(config, model).items()}


def norm_parameters(module, prefix="", kinds=NORMS):
    return {
        f"{prefix}{name}.{key}"
        for name, part in module.named_modules()
        if isinstance(part, kinds)
        for key, _ in part.named_parameters(recurse=False)
    }


def vectors(module, prefix=""):
    return {prefix + name for name, p in module.named_parameters() if p.ndim == 1}


def test_vectors_and_position_tables_of_the_backbone_do_not_decay(loaded):
    config, model = loaded
    found = decays(config, model)
    free = vectors(model.backbone, "backbone.")
    assert norm_parameters(model.backbone, "backbone.") < free
    words = model.backbone.no_weight_decay_keywords
    free |= {n for n in found if n.startswith("backbone.") and any(w in n for w in words)}
    free &= found.keys()  # what no map is computed from does not train
    assert len(free) > 60
    assert {name: found[name] for name in free} == dict.fromkeys(free, 0.0)
    whole = config.optim_wrapper.optimizer.weight_decay
    rest = {n for n in found if n.startswith("backbone.")} - free
    assert {name: found[name] for name in rest} == dict.fromkeys(rest, whole)
    assert whole > 0


def test_vectors_of_heads_do_not_decay_but_in_transformers_as_their_authors_have_it(loaded):
    """DETRs and Mask2Former are compared with mmdet's below, name by name."""
    config, model = loaded
    found = {n: d for n, d in decays(config, model).items() if not n.startswith("backbone.")}
    whole = config.optim_wrapper.optimizer.weight_decay
    free = {name for name, decay in found.items() if decay == 0}
    assert {found[name] for name in found.keys() - free} == {whole}
    if ROOT / "configs/_base_/adamw.py" in bases(Path(config.filename)):
        assert free == vectors(model) & found.keys()


def layers_of(backbone):
    """The layers of what trains; of maps that are not normed there is none behind the blocks."""
    trained = [n for n, p in backbone.named_parameters() if p.requires_grad]
    return {backbone.depth_of(name) for name in trained}


def test_the_whole_backbone_learns_at_one_rate(loaded):
    """A rule for its norms must not undo the rule for all of it."""
    config, model = loaded
    found = {rate for n, (rate, _) in rules(config, model).items() if n.startswith("backbone.")}
    if config.optim_wrapper.paramwise_cfg.layer_decay < 1:
        assert len(found) == len(layers_of(model.backbone)) >= model.backbone.depth + 1
        decay = config.optim_wrapper.paramwise_cfg.layer_decay
        last = max(layers_of(model.backbone))
        found = {max(found) / decay ** (model.backbone.depth + 1 - last)}  # of the last layers
    keys = config.optim_wrapper.paramwise_cfg.get("custom_keys", {})
    share = keys.get("backbone", {}).get("lr_mult", 1.0)
    (rate,) = found
    assert rate == pytest.approx(config.optim_wrapper.optimizer.lr * share)


def test_layer_decay_is_an_option_away(loaded):
    """As the README has it; the stem then learns slowest."""
    config, model = loaded
    option = {"optim_wrapper.paramwise_cfg.layer_decay": 0.5}
    configs.check_options(config, option)
    config = copy.deepcopy(config)
    config.merge_from_dict(option)
    found = rules(config, model)
    inside = {name: rate for name, (rate, _) in found.items() if name.startswith("backbone.")}
    last = max(layers_of(model.backbone))
    assert max(inside.values()) / min(inside.values()) == pytest.approx(2**last)
    stem = {n for n in inside if model.backbone.depth_of(n.removeprefix("backbone.")) == 0}
    assert stem
    assert {inside[name] for name in stem} == {min(inside.values())}


def test_the_recipe_s_batch_is_the_one_of_its_title(loaded):
    """What the rate is stated for, and what the rule for other batches goes by."""
    config, _ = loaded
    assert config.auto_scale_lr.enable
    title = re.search(r"batch (\d+) \((\d+) x (\d+)\)", Path(config.filename).read_text())
    if title:
        whole, devices, each = map(int, title.groups())
        assert whole == devices * each == config.auto_scale_lr.base_batch_size
    else:
        assert config.auto_scale_lr.base_batch_size == config.train_dataloader.batch_size


@pytest.mark.parametrize("name", ["deformable_detr_swin_t", "dino_swin_t", "dino_swin_l"])
def test_detrs_learn_at_the_authors_rates(name):
    """Outside the backbone all decays, and only Deformable DETR slows the places it looks at."""
    config, model = by_name(name)
    base, decay = config.optim_wrapper.optimizer.lr, 1e-4
    assert base == (2e-4 if name.startswith("deformable") else 1e-4)
    seen = set()
    for parameter, found in rules(config, model).items():
        inside = parameter.startswith("backbone.")
        places = "sampling_offsets" in parameter or parameter.startswith("reference_points")
        slow = inside or (places and name.startswith("deformable"))
        assert found[0] == pytest.approx(base / 10 if slow else base, rel=1e-9), parameter
        if not inside:
            assert found[1] == decay, parameter
        seen.add((inside, places))
    assert len(seen) == 3
    assert config.optim_wrapper.clip_grad.max_norm == 0.1


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("atss_swin_t", 36),  # arXiv 2103.14030, table 2, and the authors' README
        ("cascade_mask_rcnn_swin_t", 86),
        ("cascade_mask_rcnn_swin_s", 107),
        ("cascade_mask_rcnn_swin_b", 145),
        ("mask_rcnn_swin_t", 48),
        ("mask_rcnn_swin_s", 69),
        ("reppoints_v2_swin_t", 45),
        ("sparse_rcnn_swin_t", 110),
        ("upernet_swin_t", 60),
        ("upernet_swin_s", 81),
        ("upernet_swin_b", 121),
        ("upernet_swin_b_640", 121),
        ("upernet_swin_l_640", 234),
        ("dino_swin_l", 218),  # arXiv 2203.03605, table 3
    ],
)
def test_numbers_of_parameters(name, published):
    millions = sum(p.numel() for p in by_name(name)[1].parameters()) / 1e6
    assert millions == pytest.approx(published, abs=0.5)


# Ours -> mmdet's or mmseg's config of the same model, with another backbone if there is none with
# Swin.
THEIRS = {
    "atss_dyhead_swin_l": "dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py",
    "atss_swin_t": "atss/atss_r50_fpn_1x_coco.py",
    "cascade_mask_rcnn_swin_t_1x": "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py",
    "deformable_detr_swin_t": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "dino_swin_l": "dino/dino-5scale_swin-l_8xb2-12e_coco.py",
    "dino_swin_t": "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "faster_rcnn_swin_t": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "mask_rcnn_swin_s": "swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py",
    "mask_rcnn_swin_t": "swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py",
    "mask_rcnn_swin_t_1x": "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py",
    "reppoints_swin_t": "reppoints/reppoints-moment_r50_fpn-gn_head-gn_2x_coco.py",
    "retinanet_swin_t": "swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py",
    "sparse_rcnn_swin_t": (
        "sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py"
    ),
    "upernet_swin_b": "swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    "upernet_swin_b_640": (
        "swin/swin-base-patch4-window7-in22k-pre_upernet_8xb2-160k_ade20k-512x512.py"
    ),
    "upernet_swin_l_640": (
        "swin/swin-large-patch4-window7-in22k-pre_upernet_8xb2-160k_ade20k-512x512.py"
    ),
    "upernet_swin_s": "swin/swin-small-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
    "upernet_swin_t": "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
}
ADAMW = r"optimizer\.(type|lr|weight_decay)"  # the Swin paper's for every head
# Patterns of what is to differ from there.
OTHERWISE = {
    "atss_swin_t": [ADAMW, "length"],
    "cascade_mask_rcnn_swin_t_1x": [
        ADAMW,
        "type",  # a mere name: both are two stages, of which the second is a cascade
        r"roi_head\.bbox_head\.\d\.(type|num_shared_\w+|conv_out_channels|norm_cfg\.\w+)",
        r"roi_head\.bbox_head\.\d\.(reg_class_agnostic|reg_decoded_bbox|loss_bbox\.\w+)",
    ],
    "faster_rcnn_swin_t": [ADAMW],
    "reppoints_swin_t": [ADAMW, "length"],
    "retinanet_swin_t": [ADAMW],
    "sparse_rcnn_swin_t": [ADAMW],
    "upernet_swin_b_640": ["data_preprocessor.size"],
    "upernet_swin_l_640": ["data_preprocessor.size"],
}
# What only one of the two states has there the value it has by itself.
BY_ITSELF = {"batch_first": True, "num_levels": 4, "num_feature_levels": 4}
BY_ITSELF |= {"debug": False}  # which nothing reads


def leaves(tree, path=""):
    """Dotted key -> value, of all values that hold no others."""
    if isinstance(tree, list) and any(isinstance(part, dict) for part in tree):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {path: list(tree) if isinstance(tree, tuple) else tree}
    found = {}
    for key, part in tree.items():
        found |= leaves(part, f"{path}.{key}" if path else str(key))
    return found


def settings(config):
    """What is to be compared: of model, optimizer, batch and schedule."""
    optimizer = {key: config.optim_wrapper.optimizer[key] for key in ("type", "lr", "weight_decay")}
    optimizer["clip_grad"] = config.optim_wrapper.get("clip_grad") or {}
    parts = {name: part for name, part in config.model.items() if name != "backbone"}
    batch = config.train_dataloader.batch_size
    times = config.train_dataloader.dataset.get("times", 1)  # the set is seen in an epoch
    length = [config.train_cfg.get("max_epochs", 0) * times, config.train_cfg.get("max_iters", 0)]
    return leaves(dict(parts, optimizer=optimizer, batch_size=batch, length=length))


def only_float32(key, ours, theirs):
    """Whether ours is theirs under autocast, too."""
    return key.endswith("type") and str(ours).startswith("swin_dense.") and ours.endswith(theirs)


@pytest.mark.parametrize("name", THEIRS)
def test_all_but_the_backbone_is_theirs(name):
    ours, _ = by_name(name)
    library = mmseg if ours.default_scope == "mmseg" else mmdet
    path = Path(library.__path__[0]) / ".mim/configs" / THEIRS[name]
    if not path.is_file():
        pytest.skip(f"this {library.__name__} came without its configs ({path})")
    reference = Config.fromfile(str(path))
    if "neck" in reference.model:  # theirs skips a map that our backbone does not return
        taken, mine = (
            model.neck[0] if isinstance(model.neck, list) else model.neck
            for model in (reference.model, ours.model)
        )
        taken.in_channels = taken.in_channels[taken.pop("start_level", 0) :]
        assert len(mine.in_channels) == len(taken.in_channels)
        taken.in_channels = mine.in_channels
    found, expected = settings(ours), settings(reference)
    pairs = {
        key: [side.get(key, BY_ITSELF.get(key.rpartition(".")[2])) for side in (found, expected)]
        for key in found.keys() | expected.keys()
    }
    differing = {
        key for key, pair in pairs.items() if pair[0] != pair[1] and not only_float32(key, *pair)
    }
    patterns = OTHERWISE.get(name, ())
    assert {k for k in differing if not any(re.fullmatch(p, k) for p in patterns)} == set()
    assert [p for p in patterns if not any(re.fullmatch(p, k) for k in differing)] == []


def test_detr_and_dyhead_schedules():
    """mmdet states DyHead's 24 epochs as 12 of a doubled set."""
    for name, epochs, milestones in (
        ("deformable_detr_swin_t", 50, [40]),
        ("dino_swin_t", 12, [11]),
        ("dino_swin_l", 12, [11]),
        ("atss_dyhead_swin_t", 24, [16, 22]),
        ("atss_dyhead_swin_l", 24, [16, 22]),
    ):
        config, _ = by_name(name)
        assert config.train_cfg.max_epochs == epochs
        assert config.param_scheduler[-1].milestones == milestones
        assert config.param_scheduler[-1].end == epochs


@pytest.mark.parametrize(
    ("name", "epochs", "milestones", "drop_path"),
    [
        ("cascade_mask_rcnn_swin_t", 36, [27, 33], 0.2),
        ("cascade_mask_rcnn_swin_t_1x", 12, [8, 11], 0.0),
        ("cascade_mask_rcnn_swin_s", 36, [27, 33], 0.2),
        ("cascade_mask_rcnn_swin_b", 36, [27, 33], 0.3),
        ("mask_rcnn_swin_t", 36, [27, 33], 0.2),
        ("mask_rcnn_swin_t_1x", 12, [8, 11], 0.1),
        ("mask_rcnn_swin_s", 36, [27, 33], 0.2),
        ("mask_rcnn_swin_s_1x", 12, [8, 11], 0.2),
        ("atss_swin_t", 36, [27, 33], 0.2),
        ("reppoints_swin_t", 36, [27, 33], 0.2),
        ("reppoints_v2_swin_t", 36, [27, 33], 0.2),
        ("sparse_rcnn_swin_t", 36, [27, 33], 0.2),
        ("faster_rcnn_swin_t", 12, [8, 11], 0.2),
        ("retinanet_swin_t", 12, [8, 11], 0.2),
    ],
)
def test_the_recipe_of_detectors(name, epochs, milestones, drop_path):
    """arXiv 2103.14030, appendix A2.2; the authors' configs have other drop path rates than 0.2."""
    config, model = by_name(name)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert config.train_dataloader.batch_size == 2
    warm_up, steps = config.param_scheduler
    assert (warm_up.end, warm_up.start_factor) == (500, 0.001)
    assert config.train_cfg.max_epochs == steps.end == epochs
    assert steps.milestones == milestones
    last = model.backbone.layers[3].blocks[1].drop_path
    assert last.rate == pytest.approx(drop_path)


@pytest.mark.parametrize(
    ("name", "epochs", "milestones", "drop_path", "kernels"),
    [
        ("mask_rcnn_focalnet_t_srf_1x", 12, [9, 11], 0.1, [9, 11]),
        ("mask_rcnn_focalnet_s_lrf_1x", 12, [9, 11], 0.2, [9, 11, 13]),
        ("mask_rcnn_focalnet_b_lrf_1x", 12, [9, 11], 0.3, [9, 11, 13]),
        ("mask_rcnn_focalnet_t_lrf", 36, [27, 33], 0.3, [9, 11, 13]),
        ("mask_rcnn_focalnet_s_srf", 36, [27, 33], 0.5, [9, 11]),
        ("mask_rcnn_focalnet_b_lrf", 36, [27, 33], 0.5, [9, 11, 13]),
        ("cascade_mask_rcnn_focalnet_t_lrf", 36, [27, 33], 0.3, [7, 9, 11]),
        ("atss_focalnet_t_lrf", 36, [27, 33], 0.3, [7, 9, 11]),
        ("sparse_rcnn_focalnet_t_lrf", 36, [27, 33], 0.3, [7, 9, 11]),
    ],
)
def test_the_recipe_of_detectors_with_focalnet(name, epochs, milestones, drop_path, kernels):
    """microsoft/FocalNet, detection/configs; kernels are those of the last stage."""
    config, model = by_name(name)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert config.param_scheduler[0].end == 500
    assert config.train_cfg.max_epochs == config.param_scheduler[1].end == epochs
    assert config.param_scheduler[1].milestones == milestones
    last = model.backbone.layers[3].blocks[1]
    assert last.drop_path.rate == pytest.approx(drop_path)
    assert [layer[0].kernel_size[0] for layer in last.modulation.focal_layers] == kernels


@pytest.mark.parametrize(
    "name", [p.stem for p in LEAVES if re.match("upernet_swin_[tsbl]", p.stem)]
)
def test_the_recipe_of_upernets(name):
    """arXiv 2103.14030, appendix A2.3; the drop path rate is that of the authors' configs."""
    config, model = by_name(name)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 6e-5, 0.01)
    warm_up, decay = config.param_scheduler
    assert (warm_up.end, decay.begin, decay.end, decay.power) == (1500, 1500, 160000, 1.0)
    assert config.train_cfg.max_iters == 160000
    assert model.backbone.layers[3].blocks[1].drop_path.rate == pytest.approx(0.3)
    side = 640 if name.endswith("_640") else 512
    assert config.model.data_preprocessor.size == (side, side)
    resize, crop = config.train_dataloader.dataset.pipeline[2:4]
    assert (resize.scale, crop.crop_size) == ((4 * side, side), (side, side))
    assert config.test_dataloader.dataset.pipeline[1].scale == (4 * side, side)


# arXiv 2111.09883, appendices A1.2, A2.1 and A2.2: rate, decay, batch, iterations, warm-up, share
# of the rate from layer to layer, side of a window and of an image, drop path.
V2_UPERNETS = {
    "upernet_swin_v2_t": (4e-5, 0.05, 16, 160000, 1500, 0.95, 16, 512, 0.3),
    "upernet_swin_v2_s": (4e-5, 0.05, 16, 160000, 1500, 0.95, 16, 512, 0.3),
    "upernet_swin_v2_b": (4e-5, 0.05, 16, 160000, 1500, 0.95, 16, 512, 0.3),
    "upernet_swin_v2_b_640": (6e-5, 0.05, 64, 40000, 375, 1.0, 40, 640, 0.3),
    "upernet_swin_v2_l_640": (6e-5, 0.05, 64, 40000, 375, 1.0, 40, 640, 0.3),
    "upernet_swin_v2_g_640": (4e-5, 0.05, 32, 80000, 750, 1.0, 40, 640, 0.4),
}


@pytest.mark.parametrize("name", V2_UPERNETS)
def test_the_recipe_of_upernets_with_swin_v2(name):
    config, model = by_name(name)
    optimizer, (warm_up, decay) = config.optim_wrapper.optimizer, config.param_scheduler
    last = model.backbone.layers[3].blocks[-1]
    crop = config.train_dataloader.dataset.pipeline[3].crop_size
    assert V2_UPERNETS[name] == (
        optimizer.lr,
        optimizer.weight_decay,
        config.auto_scale_lr.base_batch_size,
        config.train_cfg.max_iters,
        warm_up.end,
        config.optim_wrapper.paramwise_cfg.layer_decay,
        last.attn.window,
        crop[0],
        pytest.approx(last.drop_path.rate),
    )
    assert (decay.begin, decay.end, decay.power) == (warm_up.end, config.train_cfg.max_iters, 1.0)


@pytest.mark.parametrize(
    ("name", "rate", "batch", "share", "window"),
    [
        ("cascade_mask_rcnn_swin_v2_t", 1e-4, 16, 1.0, 16),  # A1.2
        ("cascade_mask_rcnn_swin_v2_s", 1e-4, 16, 1.0, 16),
        ("cascade_mask_rcnn_swin_v2_b", 1e-4, 16, 1.0, 16),
        ("htc_swin_v2_b", 4e-4, 64, 0.1, 32),  # A2.1
        ("htc_swin_v2_l", 4e-4, 64, 0.1, 32),
        ("htc_swin_v2_g", 6e-4, 96, 1.0, 32),  # A2.2
    ],
)
def test_the_recipe_of_detectors_with_swin_v2(name, rate, batch, share, window):
    """arXiv 2111.09883; the backbone's rate is a share of the heads'."""
    config, model = by_name(name)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (rate, 0.05)
    assert config.auto_scale_lr.base_batch_size == batch
    (below,) = {r for n, (r, _) in rules(config, model).items() if n.startswith("backbone.")}
    assert below == pytest.approx(rate * share)
    assert model.backbone.layers[3].blocks[-1].attn.window == window
    assert config.train_cfg.max_epochs == 36


@pytest.mark.parametrize("name", [p.stem for p in LEAVES if "swin_v2_" in p.stem])
def test_distances_are_measured_in_the_windows_of_the_weights(name):
    """As the name of the weights in the command says: window8_256, window12_192."""
    text = (ROOT / f"configs/{name}.py").read_text()
    found = by_name(name)[0].model.backbone
    weights = re.search(r"--pretrained swinv2_\w+_window(\d+)_(\d+)", text)
    # The weights of V2-G are not published; the paper's are of 192 pixels, like those of L.
    window, side = map(int, weights.groups()) if weights else (12, 192)
    expected = tuple(min(window, side // stride) for stride in (4, 8, 16, 32))
    sizes = tuple(found.get("pretrained_window_sizes", (window,) * 4))
    assert sizes == expected
    if "pretrained_window_sizes" not in found:  # the windows are those of the weights
        assert found.get("window_size", 8) == window


def test_boxes_are_trained_in_the_images_of_instances():
    boxes, instances = (
        configs.load(ROOT / f"configs/{name}.py").train_dataloader.dataset.pipeline
        for name in ("atss_swin_t", "mask_rcnn_swin_t")
    )
    assert instances[1].pop("with_mask")
    assert boxes == instances


# Fragments.


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_no_fragment_names_a_backbone(path):
    content = {k: v for k, v in runpy.run_path(str(path)).items() if not k.startswith("__")}
    # Which maps a head takes is its own affair.
    assert content.get("model", {}).get("backbone", {}).keys() <= {"out_indices"}
    assert "Swin" not in repr(content)
    assert "pretrained" not in content
    assert not [name for name in content if name.startswith("_") and name != "_base_"]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_leaf_holds_a_backbone_and_only_differences(path):
    content = {k: v for k, v in runpy.run_path(str(path)).items() if not k.startswith("__")}
    assert issubclass(MODELS.get(content["model"]["backbone"]["type"]), Backbone)
    assert not [name for name in content if name in LOADERS]
    assert all((path.parent / base).is_file() for base in content["_base_"])


@functools.cache
def read(path):
    """What a config says, with the fragments it names; to be read."""
    return Config.fromfile(str(path)).to_dict()


def said(path):
    """What the fragments that a config names say together."""
    named = runpy.run_path(str(path)).get("_base_", [])
    found = {}
    for name in [named] if isinstance(named, str) else named:
        found |= read(path.parent / name)  # no two share a section
    return found


def repeated(own, others, place=""):
    """Dotted keys of the values that are there already."""
    for key in own.keys() & others.keys():
        one, other = own[key], others[key]
        if isinstance(one, dict) and isinstance(other, dict):
            yield from repeated(one, other, f"{place}{key}.")
        elif leaves(one) == leaves(other):
            yield f"{place}{key}"


@pytest.mark.parametrize("path", [*LEAVES, *FRAGMENTS], ids=lambda path: path.stem)
def test_nothing_is_said_twice(path):
    assert not sorted(repeated(runpy.run_path(str(path)), said(path)))


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_what_a_backbone_has_by_itself_is_not_said(path):
    """But for its size, which every leaf says, and for what undoes a fragment."""
    own = runpy.run_path(str(path))["model"]["backbone"]
    fragments = said(path)["model"].get("backbone", {})
    arguments = inspect.signature(MODELS.get(own["type"])).parameters
    size = {"type", "arch"}
    usual = {key for key in own.keys() - size if own[key] == arguments[key].default}
    assert usual <= fragments.keys()


def bases(path):
    """The fragments a config is made of, and those that they are made of."""
    named = runpy.run_path(str(path)).get("_base_", [])
    found = {(path.parent / n).resolve() for n in ([named] if isinstance(named, str) else named)}
    return found.union(*map(bases, found))


def test_every_fragment_is_used():
    assert set().union(*map(bases, LEAVES)) == {path.resolve() for path in FRAGMENTS}
