"""HTC++ beside the Swin paper, and beside mmdet's HTC."""

from pathlib import Path

import mmdet
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.settings import config as configs

SIZES = ("htc_swin_b", "htc_swin_l")
ALL = (*SIZES, "htc_swin_v2_b", "htc_swin_v2_l", "htc_swin_v2_g")
THEIRS = Path(mmdet.__path__[0]) / ".mim/configs"
HTC = THEIRS / "htc/htc_x101-64x4d-dconv-c3-c5_fpn_ms-400-1400-16xb1-20e_coco.py"
INSTABOOST = THEIRS / "instaboost/cascade-mask-rcnn_r50_fpn_instaboost-4x_coco.py"


def load(name):
    config = configs.load(ROOT / f"configs/{name}.py")
    init_default_scope(config.default_scope)
    return config


def built(name):
    config = load(name)
    with torch.device("meta"):
        return config, MODELS.build(config.model)


def reference(path):
    if not path.is_file():
        pytest.skip(f"this mmdet came without its configs ({path})")
    return Config.fromfile(str(path))


def steps(config):
    return {step.type.rpartition(".")[2]: step for step in config.train_dataloader.dataset.pipeline}


def count(module):
    return sum(p.numel() for p in module.parameters())


# arXiv 2103.14030, table 2c. The paper's FLOPs are of windows that are filled up at the border,
# ours are a little lower; docs/model_zoo.json has both.
@pytest.mark.parametrize(("name", "millions"), [("htc_swin_b", 160), ("htc_swin_l", 284)])
def test_the_paper_s_number_of_parameters(name, millions):
    """And what it says of the parts: without one of them it is another model."""
    _, model = built(name)
    assert round(count(model) / 1e6) == millions
    block, head = model.neck[0], model.roi_head
    for part in (block, block.mlp, head.semantic_head):
        assert round((count(model) - count(part)) / 1e6) < millions
    wider = sum(79 * 4 * (stage.fc_reg.in_features + 1) for stage in head.bbox_head)
    assert round((count(model) + wider) / 1e6) > millions  # boxes of each class's own


@pytest.mark.parametrize("name", SIZES)
def test_windows_of_seven_and_paths_dropped_as_in_the_paper(name):
    _, model = built(name)
    blocks = [block for layer in model.backbone.layers for block in layer.blocks]
    assert {block.attn.window for block in blocks} == {7}
    assert blocks[-1].drop_path.rate == pytest.approx(0.2)
    assert model.neck[0].drop_path.rate == 0.2


@pytest.mark.parametrize("name", ALL)
def test_the_attention_is_between_the_backbone_and_the_fpn(name):
    config, model = built(name)
    announced = list(model.backbone.out_channels)
    assert [part.type for part in config.model.neck] == ["swin_dense.GlobalAttention", "FPN"]
    assert [list(part.in_channels) for part in config.model.neck] == [announced, announced]
    assert model.neck[0].attn.heads == model.backbone.layers[-1].blocks[0].attn.heads


@pytest.mark.parametrize("name", SIZES)
def test_the_paper_s_schedule(name):
    config = load(name)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-4, 0.05)
    assert (config.train_cfg.max_epochs, config.train_dataloader.batch_size) == (72, 2)
    step = config.param_scheduler[1]
    assert (step.milestones, step.gamma, step.end) == ([63, 69], 0.1, 72)
    resize = steps(config)["RandomResize"]
    assert [max(pair) for pair in resize.scale] == [1600, 1600]
    assert [min(pair) for pair in resize.scale] == [400, 1400]
    assert config.model.test_cfg.rcnn.nms.type == "soft_nms"


def test_swin_v2_sees_images_of_1536():
    """arXiv 2111.09883, A2.1: 0.1 to 2 times that size, cut and filled up to it."""
    found = steps(load("htc_swin_v2_l"))
    assert (found["RandomResize"].scale, found["RandomResize"].ratio_range) == (
        (1536, 1536),
        (0.1, 2.0),
    )
    assert found["RandomCrop"].crop_size == found["Pad"].size == (1536, 1536)
    (resize,) = [
        step
        for step in load("htc_swin_v2_l").test_dataloader.dataset.pipeline
        if step.type == "Resize"
    ]
    assert min(resize.scale) == 1100


def differing(ours, theirs, keys):
    return {key for key in keys if ours.get(key) != theirs.get(key)}


def test_the_cascade_is_mmdet_s():
    ours, theirs = load("htc_swin_b").model, reference(HTC).model
    assert ours.type == theirs.type
    assert ours.data_preprocessor.pad_seg == theirs.data_preprocessor.pad_seg is True
    own = {"bbox_head", "mask_head"}
    assert differing(ours.roi_head, theirs.roi_head, theirs.roi_head.keys() - own) == set()
    default = dict(with_conv_res=True)
    assert ours.roi_head.mask_head == [default | yours for yours in theirs.roi_head.mask_head]
    assert ours.neck[1] == dict(theirs.neck, in_channels=ours.neck[1].in_channels)
    rcnn = theirs.test_cfg.rcnn
    assert differing(ours.test_cfg.rcnn, rcnn, rcnn.keys() - {"nms"}) == set()
    assert ours.test_cfg.rcnn.nms.iou_threshold == rcnn.nms.iou_threshold
    assert ours.test_cfg.rpn == theirs.test_cfg.rpn
    assert ours.train_cfg.rpn_proposal == theirs.train_cfg.rpn_proposal
    for mine, yours in zip(ours.train_cfg.rcnn, theirs.train_cfg.rcnn, strict=True):
        more = dict(match_low_quality=False)  # which is how mmdet's two stages are told apart
        assert dict(mine, debug=False) == dict(yours, assigner=dict(yours.assigner, **more))
    # One box for all classes as in theirs, in the shape of the Swin paper's Cascade R-CNN.
    cascade = load("cascade_mask_rcnn_swin_v2_b").model.roi_head.bbox_head
    for mine, yours, wide in zip(
        ours.roi_head.bbox_head, theirs.roi_head.bbox_head, cascade, strict=True
    ):
        assert yours.reg_class_agnostic is True
        assert mine == dict(wide, reg_class_agnostic=True)
        assert mine.bbox_coder == yours.bbox_coder


def test_the_data_are_mmdet_s():
    ours, theirs = load("htc_swin_b"), reference(HTC)
    assert steps(ours)["RandomResize"].scale == steps(theirs)["RandomResize"].scale
    prefix = theirs.train_dataloader.dataset.data_prefix
    found = ours.train_dataloader.dataset.data_prefix
    assert {key: path.rstrip("/") for key, path in prefix.items()} == dict(found)


def test_instaboost_has_mmdet_s_values():
    """Flips and the heat map, which ours has not, are off in theirs; ours leaves colours alone."""
    theirs = steps(reference(INSTABOOST))["InstaBoost"]
    step = TRANSFORMS.build(steps(load("htc_swin_b"))["InstaBoost"])
    assert step.prob == theirs.aug_ratio
    assert step.limits.zoom == tuple(theirs.scale)
    assert 1 / step.limits.shift == pytest.approx(theirs.dx)
    assert 1 / step.limits.shift == pytest.approx(theirs.dy)
    assert (-step.limits.turn, step.limits.turn) == tuple(theirs.theta)
    assert tuple(theirs.action_prob) == (1, 0, 0)
    assert theirs.hflag is False
