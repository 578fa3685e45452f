"""Boxes under autocast: to the pixel, where mmdet's own heads round to a 256th of the image."""

import pytest
import torch
from conftest import ROOT
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.settings import config as configs
from swin_dense.registry import MODELS, TASK_UTILS

pytestmark = pytest.mark.plain

NAMES = ("DeformableDETRHead", "DINOHead")
SIDE = 1333  # pixels


@pytest.fixture(params=NAMES)
def case(request):
    """Our head, mmdet's with the same weights, and the outputs of three layers to look at."""
    init_default_scope("mmdet")  # another test may have left mmseg's
    arguments = dict(num_classes=5, embed_dims=16, num_pred_layer=3, train_cfg=None)
    arguments["loss_cls"] = dict(type="mmdet.FocalLoss", use_sigmoid=True)
    init_default_scope("mmdet")
    torch.manual_seed(3)
    ours = MODELS.build(dict(type=f"swin_dense.Float32{request.param}", **arguments))
    theirs = MODELS.build(dict(type=f"mmdet.{request.param}", **arguments))
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(3, 2, 7, 16)
    references = [torch.rand(2, 7, 4) for _ in range(4)]
    return ours, theirs, hidden, references


def test_in_float32_they_are_mmdet_s(case):
    ours, theirs, hidden, references = case
    for found, expected in zip(ours(hidden, references), theirs(hidden, references), strict=True):
        assert torch.equal(found, expected)


def test_under_autocast_boxes_stay_exact(case):
    ours, theirs, hidden, references = case
    hidden = hidden.bfloat16()  # as the decoder hands it on
    _, exact = theirs(hidden.float(), references)
    with torch.autocast("cpu", torch.bfloat16):
        scores, boxes = ours(hidden, references)
        _, rounded = theirs(hidden, references)
    assert scores.dtype == boxes.dtype == torch.float32
    assert (boxes - exact).abs().max() * SIDE < 0.01
    assert (rounded.float() - exact).abs().max() * SIDE > 1  # else there was nothing to mend


def test_their_gradients_reach_the_weights_in_float32(case):
    ours, _, hidden, references = case
    with torch.autocast("cpu", torch.bfloat16):
        scores, boxes = ours(hidden.bfloat16(), references)
        (scores.sum() + boxes.sum()).backward()
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters())
    assert all(p.grad.any() for p in ours.parameters())


# Mask2Former.

EMBED = 16
MASKED = dict(
    in_channels=[8, 12, 20, 28],
    strides=[4, 8, 16, 32],
    feat_channels=EMBED,
    out_channels=EMBED,
    num_queries=23,
    num_transformer_feat_level=3,
    positional_encoding=dict(num_feats=EMBED // 2, normalize=True),
    pixel_decoder=dict(
        type="mmdet.MSDeformAttnPixelDecoder",
        num_outs=3,
        norm_cfg=dict(type="GN", num_groups=4),
        act_cfg=dict(type="ReLU"),
        positional_encoding=dict(num_feats=EMBED // 2, normalize=True),
        encoder=dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=EMBED, num_heads=2, num_levels=3, batch_first=True),
                ffn_cfg=dict(embed_dims=EMBED, feedforward_channels=24),
            ),
        ),
    ),
    transformer_decoder=dict(
        num_layers=3,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=EMBED, num_heads=2, batch_first=True),
            cross_attn_cfg=dict(embed_dims=EMBED, num_heads=2, batch_first=True),
            ffn_cfg=dict(embed_dims=EMBED, feedforward_channels=24),
        ),
    ),
    loss_cls=dict(type="mmdet.CrossEntropyLoss", loss_weight=2.0, class_weight=[1.0] * 5 + [0.1]),
    loss_mask=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=5.0),
    loss_dice=dict(type="mmdet.DiceLoss", naive_dice=True, eps=1.0, loss_weight=5.0),
    train_cfg=dict(
        num_points=1531,
        assigner=dict(
            type="mmdet.HungarianAssigner",
            match_costs=[
                dict(type="mmdet.ClassificationCost", weight=2.0),
                dict(type="mmdet.CrossEntropyLossCost", use_sigmoid=True, weight=5.0),
                dict(type="mmdet.DiceCost", pred_act=True, eps=1.0, weight=5.0),
            ],
        ),
        sampler=dict(type="mmdet.MaskPseudoSampler"),
    ),
)
MASK_HEADS = {
    "Float32Mask2FormerHead": (
        "mmdet.Mask2FormerHead",
        dict(num_things_classes=3, num_stuff_classes=2),
    ),
    "Float32LabelMapMask2FormerHead": ("mmseg.Mask2FormerHead", dict(num_classes=5)),
}


@pytest.fixture(params=MASK_HEADS)
def masked(request):
    """Our head and the library's; answers of two layers for two images; nine objects in each.

    The answers of the queries differ little, as they do when a training starts.
    """
    theirs, classes = MASK_HEADS[request.param]
    torch.manual_seed(5)
    heads = [
        MODELS.build(ConfigDict(MASKED, type=name, **classes))
        for name in (f"swin_dense.{request.param}", theirs)
    ]
    scores = [0.1 * torch.randn(2, 23, 6) for _ in range(2)]
    masks = [torch.randn(2, 1, 24, 32) + 0.02 * torch.randn(2, 23, 24, 32) for _ in range(2)]
    objects = [
        InstanceData(labels=torch.randint(0, 5, (9,)), masks=(torch.rand(9, 96, 128) < 0.4).long())
        for _ in range(2)
    ]
    return *heads, scores, masks, objects


def judged(head, scores, masks, objects, autocast):
    """The losses, and which object each query of each layer and image was matched with."""
    matches = []
    assign = head.assigner.assign

    def noted(*args, **kwargs):
        result = assign(*args, **kwargs)
        matches.append(result.gt_inds.tolist())
        return result

    head.assigner.assign = noted
    torch.manual_seed(11)  # of the points looked at
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = head.loss_by_feat(scores, masks, objects, [{}, {}])
    del head.assigner.assign
    return losses, matches


def test_masks_in_float32_are_judged_as_by_theirs(masked):
    ours, theirs, *answers = masked
    found, expected = (judged(head, *answers, autocast=False) for head in (ours, theirs))
    assert found == expected


def test_autocast_changes_no_match_of_masks_and_rounds_no_loss(masked):
    ours, theirs, scores, masks, objects = masked
    exact, matches = judged(theirs, scores, masks, objects, autocast=False)
    found, same = judged(ours, scores, masks, objects, autocast=True)
    assert same == matches
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, exact[name])
    rounded, others = judged(theirs, scores, masks, objects, autocast=True)
    assert others != matches  # else there was nothing to mend
    assert any(loss.dtype == torch.bfloat16 or loss != exact[n] for n, loss in rounded.items())


def test_gradients_of_masks_come_back_in_their_dtype(masked):
    ours, _, scores, masks, objects = masked
    scores = [s.bfloat16().requires_grad_() for s in scores]
    masks = [m.bfloat16().requires_grad_() for m in masks]
    losses, _ = judged(ours, scores, masks, objects, autocast=True)
    sum(losses.values()).sum().backward()
    for tensor in (*scores, *masks):
        assert tensor.grad.dtype == torch.bfloat16
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


# RepPoints.


@pytest.fixture
def pointed():
    """Our head, mmdet's, and where an object lies far to the right: score map and points there."""
    init_default_scope("mmdet")
    arguments = dict(num_classes=3, in_channels=8, feat_channels=8, point_feat_channels=8)
    arguments |= dict(point_strides=[4], train_cfg=None)
    ours = MODELS.build(ConfigDict(type="swin_dense.Float32RepPointsHead", **arguments))
    theirs = MODELS.build(ConfigDict(type="mmdet.RepPointsHead", **arguments))
    torch.manual_seed(6)
    with torch.no_grad():
        for head in (ours, theirs):
            head.moment_transfer.copy_(torch.tensor([0.3, 0.5]))
    scores = torch.full((1, 3, 2, 335), -9.0)
    scores[0, 2, 1, 333] = 4.0  # exact in bfloat16
    points = torch.randn(1, 18, 2, 335).bfloat16().float()
    return ours, theirs, scores, points


def box_of(head, scores, points):
    found = head.predict_by_feat(
        [scores],
        [head.points2bbox(points)],
        batch_img_metas=[dict(img_shape=(8, 1340))],
        cfg=ConfigDict(score_thr=0.5, nms_pre=10),
        with_nms=False,
    )[0]
    assert found.labels.tolist() == [2]
    return found.bboxes[0]


def test_boxes_of_points_in_float32_are_mmdet_s(pointed):
    ours, theirs, scores, points = pointed
    assert torch.equal(box_of(ours, scores, points), box_of(theirs, scores, points))


def test_boxes_of_points_stay_exact(pointed):
    """By hand: the mean of the points, and half of the sides is their spread times e^transfer."""
    ours, theirs, scores, points = pointed
    y, x = points[0, :, 1, 333].double().view(9, 2).T
    sides = [x.std() * torch.tensor(0.3).exp(), y.std() * torch.tensor(0.5).exp()]
    centre = torch.stack([x.mean(), y.mean()]) * 4 + torch.tensor([333 * 4, 4])
    half = torch.stack(sides) * 4
    expected = torch.cat([centre - half, centre + half])
    expected = expected.clamp(torch.zeros(4), torch.tensor([1340, 8, 1340, 8]))
    found = box_of(ours, scores.bfloat16(), points.bfloat16())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.01
    rounded = box_of(theirs, scores.bfloat16(), points.bfloat16())
    assert (rounded - expected).abs().max() > 1  # else there was nothing to mend


# The focal loss.


def test_the_focal_loss_is_divided_by_one_at_least():
    ours, theirs = (
        MODELS.build(dict(type=name, use_sigmoid=True, loss_weight=2.0))
        for name in ("swin_dense.ClampedFocalLoss", "mmdet.FocalLoss")
    )
    torch.manual_seed(8)
    scores, labels = torch.randn(7, 3), torch.tensor([3, 0, 3, 2, 3, 3, 1])
    for count in (1.0, 2.5):
        factor = torch.tensor(count)
        assert torch.equal(
            ours(scores, labels, avg_factor=factor), theirs(scores, labels, avg_factor=factor)
        )
    whole = theirs(scores, labels, reduction_override="sum")
    assert torch.equal(ours(scores, labels, reduction_override="sum"), whole)
    none = torch.tensor(0.0)
    torch.testing.assert_close(ours(scores, labels, avg_factor=none), whole)
    assert theirs(scores, labels, avg_factor=none) > 1e6 * whole  # else there was nothing to mend


# Anchors.


def test_anchors_are_exact_for_any_dtype_of_the_scores():
    sizes = dict(strides=[4], ratios=[0.5], scales=[8])
    ours = TASK_UTILS.build(dict(type="swin_dense.Float32AnchorGenerator", **sizes))
    theirs = TASK_UTILS.build(dict(type="mmdet.AnchorGenerator", **sizes))
    exact = theirs.grid_priors([(3, 340)], torch.float32, "cpu")[0]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert torch.equal(ours.grid_priors([(3, 340)], dtype, "cpu")[0], exact)
    rounded = theirs.grid_priors([(3, 340)], torch.bfloat16, "cpu")[0]
    assert (rounded.float() - exact).abs().max() > 2  # else there was nothing to mend


def test_proposals_of_mask_rcnn_are_exact_under_autocast():
    """Its RPN hands on boxes in float32, not in that of its scores."""
    config = configs.load(ROOT / "configs/mask_rcnn_swin_nano.py")
    init_default_scope("mmdet")
    model = MODELS.build(config.model).eval()
    samples = [DetDataSample(metainfo=dict(img_shape=(64, 96), scale_factor=(1.0, 1.0)))]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        maps = model.extract_feat(torch.randn(1, 3, 64, 96))
        found = model.rpn_head.predict(maps, samples, rescale=False)[0]
    assert found.bboxes.dtype == torch.float32
    assert len(found.bboxes)
    assert not torch.equal(found.bboxes, found.bboxes.bfloat16().float())
