"""The model of every config, made small, learns and predicts: float32 and bfloat16, odd sizes.

Small means the backbone's size "nano" and fewer queries; which modules
there are stays. Sizes of one model are then the same, and one of them stands for all.
"""

import copy
import json
import re
from collections import Counter, defaultdict

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.engine import run
from swin_dense.openmmlab.settings import channels, image_sizes, places, sections
from swin_dense.openmmlab.settings import config as configs
from swin_dense.registry import DATASETS

LEAVES = sorted((ROOT / "configs").glob("*.py"))
# What `different` finds among them: written down, as every process that collects tests would read
# all configs to find it again.
DIFFERENT = (
    "atss_dyhead_swin_l",
    "atss_focalnet_t_lrf",
    "cascade_mask_rcnn_convnext_b",
    "cascade_mask_rcnn_vitdet_b",
    "deformable_detr_swin_t",
    "dino_focalnet_h",
    "dino_swin_l",
    "dino_swin_t",
    "faster_rcnn_swin_t",
    "htc_swin_v2_b",
    "mask2former_dinat_l",
    "mask2former_dinat_l_ade20k",
    "mask2former_dinat_l_panoptic",
    "mask_rcnn_convnext_v2_b",
    "mask_rcnn_cswin_b",
    "mask_rcnn_swin_nano",
    "mask_rcnn_vitdet_b",
    "reppoints_swin_t",
    "reppoints_v2_swin_t",
    "retinanet_swin_v2_t",
    "sparse_rcnn_focalnet_t_lrf",
    "upernet_beit_b_640",
    "upernet_beit_l_640",
    "upernet_beit_v2_b",
    "upernet_beit_v2_l",
    "upernet_convnext_b",
    "upernet_convnext_b_640",
    "upernet_nat_b",
    "upernet_swin_nano",
)
KEPT = ("type", "out_indices")  # of a backbone; the rest of it is asked in tests/backbones
# Key anywhere in the model -> its largest value.
AT_MOST = {
    "num_layers": 3,  # of Mask2Former, each looks at another level
    "num_blocks": 2,
    "num_queries": 20,
    "num_proposals": 20,
    "max_per_img": 15,
    "stacked_convs": 2,
    "num_convs": 2,
    "channels": 32,
    "fc_out_channels": 40,
    "feedforward_channels": 48,
    "num_points": 112,
    "score_thr": 0.0,  # so that untrained models find something
    "min_score": 0.0,  # of soft-NMS
}
# Channels anywhere in the model -> what they become; heads add some of them to others.
NARROW = {256: 64, 128: 32}
WIDTHS = re.compile(r".*(channels?|embed_dims|num_feats)")
FINEST = 10  # pixels; objects twice as large are looked up in the second map
SCALES = ((107, 75), (91, 61))  # both odd, and different: the batch is padded
# What may learn nothing from two images, and why.
IDLE = {
    r"bbox_head\.scales\.\d\.scale": "no object has the size of this level's anchors",
}
# And from untrained boxes of Sparse R-CNN, which stay near the whole image they begin with.
FINEST_MAP = r"(backbone\.norm0|neck\.(lateral|fpn)_convs\.0\.conv)\.(weight|bias)"


def nodes(tree):
    """Every dict in a config but the backbone's."""
    if isinstance(tree, dict):
        yield tree
        tree = [part for name, part in tree.items() if name != "backbone"]
    for part in tree if isinstance(tree, list | tuple) else ():
        yield from nodes(part)


def shrink(config):
    """Make a model's config and its images small, in place; channels are left open."""
    image_sizes.scale_images(config, SCALES[0])
    model = config.model
    kept = {key: value for key, value in model.backbone.items() if key in KEPT}
    model.backbone = ConfigDict(kept, arch="nano", drop_path_rate=0.0)
    for node in nodes(model):
        for key in node.keys() & AT_MOST.keys():
            node[key] = min(node[key], AT_MOST[key])
        narrow = model.type != "SparseRCNN"  # few of its channels would be alive in the end
        for key in filter(WIDTHS.fullmatch, node) if narrow else ():
            width = node[key]
            if isinstance(width, list | tuple):
                node[key] = [NARROW.get(one, one) for one in width]
            else:
                node[key] = NARROW.get(width, width)
        if "allowed_border" in node:  # in images this small all large anchors cross the border
            node["allowed_border"] = -1
        if len(node.get("featmap_strides", ())) > 1:  # and would all be those of the first map
            node["finest_scale"] = FINEST
    if "encoder" in model:  # a DETR, whose head has a width by itself
        model.bbox_head.embed_dims = model.decoder.layer_cfg.self_attn_cfg.embed_dims
    for name in ("neck", *channels.HEADS):
        for _, part in channels.parts(model, name):
            if isinstance(part.get("in_channels"), list) or "in_index" in part:
                part.pop("in_channels", None)


def different(paths):
    """Of configs whose heads are the same when they are small, one.

    Which backbone stands below a head is asked in tests/backbones and test_backbones; here kinds
    of backbones take turns. Recipes and pipelines are asked of every config in test_configs.
    """
    heads = defaultdict(dict)
    for path in paths:
        config = Config.fromfile(str(path))
        shrink(config)
        kind = config.model.pop("backbone").type
        if kind == "swin_dense.Timm":  # asked in tests/backbones; needs what may be missing
            continue
        heads[json.dumps(config.model, sort_keys=True)].setdefault(kind, path)
    taken = Counter()
    for kinds in heads.values():
        kind = min(kinds, key=lambda kind: taken[kind])
        taken[kind] += 1
        yield kinds[kind]


def images(config, split):
    """One image of a split at each scale, as the config's own pipeline gives it."""
    set_random_seed(7)
    found = []
    for i, scale in enumerate(SCALES):
        scaled = copy.deepcopy(config)
        image_sizes.scale_images(scaled, scale)
        found.append(DATASETS.build(scaled[sections.LOADERS[split]].dataset)[i])
    return found


def build(name, root):
    """(config, model, two training images, two test images) of a config of ours made small."""
    config = configs.load(ROOT / f"configs/{name}.py")
    init_default_scope(config.default_scope)
    places.complete_data(config, data_root=str(root))
    shrink(config)
    channels.fill(config)
    set_random_seed(7)
    model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(config.model)))
    model.init_weights()
    with torch.no_grad():  # zeros and ones of a fresh model would hide what does not flow
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return config, model, images(config, "train"), images(config, "val")


@pytest.fixture(scope="module", params=DIFFERENT)
def made(request, small_shapes):
    """(config, model, two training images, two test images), and the weights to start from."""
    parts = build(request.param, small_shapes.root)
    return parts, copy.deepcopy(parts[1].state_dict())


@pytest.fixture
def small(made):
    """(config, model, two training images, two test images); what a test trains is undone."""
    parts, start = made
    parts[1].load_state_dict(start)
    return parts


def collated(items):
    return {key: [copy.deepcopy(item[key]) for item in items] for key in items[0]}


def without_truth(item):
    """The same image when nothing in it is annotated."""
    item = copy.deepcopy(item)
    sample = item["data_samples"]
    if "gt_instances" in sample:
        sample.gt_instances = sample.gt_instances[:0]
    if "gt_sem_seg" in sample:
        for name in sample.gt_sem_seg.keys():  # noqa: SIM118
            sample.gt_sem_seg.get(name).fill_(255)
    return item


def step(config, model, items, amp):
    """Train one iteration as a run does; returns the losses and each parameter's gradient."""
    config = copy.deepcopy(config)
    if amp:
        run.use_amp(config, amp)
    set_random_seed(7)
    model.train()
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    with optimizer.optim_context(model):
        batch = model.data_preprocessor(collated(items), training=True)
        loss, terms = model.parse_losses(model(**batch, mode="loss"))
    optimizer.zero_grad()
    optimizer.backward(loss)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    gradients = {n: None if g is None else g.clone() for n, g in gradients.items()}
    optimizer.step()
    return terms, gradients


def broken(tensors):
    """Names of the tensors that are missing or not finite."""
    return [n for n, t in tensors.items() if t is None or not t.isfinite().all()]


def test_every_different_head_is_asked():
    assert {path.stem for path in different(LEAVES)} == set(DIFFERENT)


def test_every_head_knows_the_classes_of_the_data(small):
    config, model, _, _ = small
    classes = len(config.train_dataloader.dataset.metainfo["classes"])
    sizes = {n: vars(m).get("num_classes") for n, m in model.named_modules()}
    maps = {sizes.pop(n) for n in list(sizes) if n.endswith("semantic_head")}
    assert maps <= {183}  # things and stuff of label maps, beside the instances
    assert set(sizes.values()) - {None, 1} == {classes}  # 1: a proposal is an object or not
    denoising = getattr(model, "dn_query_generator", None)
    assert denoising is None or denoising.label_embedding.num_embeddings == classes


@pytest.mark.plain
@pytest.mark.parametrize("amp", [None, "bf16"])
def test_every_parameter_learns(small, amp):
    config, model, train, _ = small
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    terms, gradients = step(config, model, train, amp)
    assert not broken(terms)
    assert not broken(gradients)
    assert gradients.keys() == before.keys()
    still = [n for n, g in gradients.items() if not g.any()]
    idle = [*IDLE, *[FINEST_MAP] * (config.model.type == "SparseRCNN")]
    assert not [n for n in still if not any(re.fullmatch(pattern, n) for pattern in idle)]
    after = dict(model.named_parameters())
    assert not broken(after)
    assert sum(not torch.equal(after[n], p) for n, p in before.items()) > len(before) // 2


@pytest.mark.parametrize(("empty", "amp"), [([1], "bf16"), ([0, 1], None)], ids=["one", "all"])
def test_images_without_objects_do_no_harm(small, empty, amp):
    """A gradient that is missing on one of several processes would hang all of them."""
    config, model, train, _ = small
    items = [without_truth(item) if i in empty else item for i, item in enumerate(train)]
    terms, gradients = step(config, model, items, amp)
    assert not broken(terms)
    assert terms["loss"] < 1000  # none is divided by the number of objects
    assert not broken(gradients)
    assert not broken(dict(model.named_parameters()))


@pytest.mark.plain
@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
def test_it_predicts(small, amp):
    config, model, _, test = small
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=amp):
        samples = [model.test_step(collated([item]))[0] for item in test]
    classes = len(config.test_dataloader.dataset.metainfo["classes"])
    clipped = all(node.get("clip_border", True) for node in nodes(config.model))
    for sample in samples:
        height, width = sample.ori_shape
        if "pred_sem_seg" in sample:
            labels = sample.pred_sem_seg.data
            assert labels.shape == (1, height, width)
            assert labels.max() < classes
        if "pred_panoptic_seg" in sample:
            assert sample.pred_panoptic_seg.sem_seg.shape == (1, height, width)
        if "pred_instances" in sample:
            found = sample.pred_instances
            assert len(found) > 0
            assert found.labels.max() < classes
            assert found.scores.isfinite().all()
            assert (found.scores >= 0).all()
            assert (found.scores <= 1).all()
            assert found.bboxes.isfinite().all()
            assert (found.bboxes[:, 2:] >= found.bboxes[:, :2]).all()
            if clipped:
                sides = torch.tensor([width, height] * 2) + 1  # rounded to bfloat16
                assert ((found.bboxes >= 0) & (found.bboxes <= sides)).all()
            if "masks" in found:
                assert found.masks.shape == (len(found), height, width)
