"""The head of RepPoints V2 against loops and hand-made maps, and its size part by part."""

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

import swin_dense.openmmlab  # noqa: F401
from swin_dense import ops
from swin_dense.openmmlab.models.reppoints_v2 import semantic_weights
from swin_dense.registry import MODELS, TASK_UTILS

pytestmark = pytest.mark.plain

CONFIG = Config.fromfile(str(ROOT / "configs/_base_/reppoints_v2.py")).model
CLASSES = 3
STRIDES = [8, 16, 32, 64, 128]
SHAPE = (150, 214)  # of the image, in pixels
SIZES = [(20, 28), (10, 14), (5, 7), (3, 4), (2, 2)]
META = dict(img_shape=SHAPE, pad_shape=(160, 224), scale_factor=(1.0, 1.0))
SMALL = dict(
    num_classes=CLASSES,
    in_channels=8,
    feat_channels=8,
    point_feat_channels=6,
    corner_channels=4,
    norm_cfg=dict(type="GN", num_groups=2),
)


def built(**options):
    """A head, its numbers random; the fragment's but for its size."""
    init_default_scope("mmdet")
    parts = dict(train_cfg=CONFIG.train_cfg, test_cfg=CONFIG.test_cfg)
    head = MODELS.build(ConfigDict(CONFIG.bbox_head, **parts, **(SMALL | options)))
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1))
    return head


def objects(*rows):
    """Of (label, x1, y1, x2, y2)."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 5)
    return InstanceData(labels=table[:, 0].long(), bboxes=table[:, 1:])


SOME = objects(
    (1, 20, 31, 77, 66), (1, 30, 40, 52, 60), (0, 150.5, 3, 213, 140), (2, 6, 90, 17, 99)
)
NONE = objects()


def maps(channels, scale=1.0, batch=2):
    return [scale * torch.randn(batch, channels, *size) for size in SIZES]


def answers():
    """What a head returns in training; boxes of a few strides around their places."""
    torch.manual_seed(12)
    first, last = maps(18), maps(18)
    for points in (*first, *last):
        points[:, :2] -= 2.0
        points[:, 2:4] += 2.0
    scores, semantics, corners = maps(CLASSES), maps(CLASSES), maps(6)
    return scores, first, last, semantics, corners


# What it is made of.


def test_parameters_by_part():
    """Of the Swin paper's detector, 44.9 million in all; see also test_bifpn.py."""
    init_default_scope("mmdet")
    with torch.device("meta"):
        head = MODELS.build(CONFIG.bbox_head)
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in head.named_children()}
    tower = 3 * (256 * 256 * 9 + 512)
    assert count["cls_convs"] == count["reg_convs"] == tower
    assert count["semantic_convs"] == 256 * 256 * 9 + 512 + 256 * 256 + 512
    assert count["semantic_out"] == count["reppoints_cls_out"] == 256 * 80 + 80
    assert count["corner_pools"] == 2 * 575_232
    corners = [count[f"{end}_{kind}"] for end in ("tl", "br") for kind in ("heat", "offset")]
    assert sum(corners) == 13_830
    assert count["reppoints_pts_init_conv"] + count["reppoints_pts_init_out"] == 594_706
    assert count["reppoints_cls_conv"] == count["reppoints_pts_refine_conv"] == 262 * 256 * 9
    assert sum(count.values()) == sum(p.numel() for p in head.parameters()) == 7_210_442


def test_a_fresh_head():
    """Every convolution as its authors have it, those in the corner pools, too."""
    init_default_scope("mmdet")
    wide = dict(in_channels=32, feat_channels=32, point_feat_channels=32, corner_channels=32)
    head = MODELS.build(ConfigDict(CONFIG.bbox_head, **wide))
    head.init_weights()
    weights = {n: p for n, p in head.named_parameters() if p.ndim == 4}
    assert len(weights) == 3 + 3 + 2 + 1 + 2 * 5 + 4 + 2 + 1 + 1 + 1 + 1
    for name, weight in weights.items():
        assert weight.std().item() == pytest.approx(0.01, rel=0.15), name
    rare = {"reppoints_cls_out", "semantic_out", "tl_heat", "br_heat"}
    for name, parameter in head.named_parameters():
        module, _, kind = name.rpartition(".")
        if kind == "bias":
            expected = math.log(0.01 / 0.99) if module in rare else 0.0
            assert parameter.tolist() == pytest.approx([expected] * len(parameter)), name


# Forward.


NAMES = ("scores", "first points", "last points", "map of classes", "corners")


def by_hand(head, x):
    """The layers one after another, by the names of their weights."""
    numbers = dict(head.named_parameters())

    def conv(name, x, relu=False, bias=True):
        weight = numbers[f"{name}.weight"]
        out = F.conv2d(x, weight, numbers[f"{name}.bias"], padding=weight.shape[-1] // 2)
        return out.clamp(min=0) if relu else out

    def block(name, x, relu=True):
        weight = numbers[f"{name}.conv.weight"]
        out = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        out = F.group_norm(out, 2, numbers[f"{name}.gn.weight"], numbers[f"{name}.gn.bias"])
        return out.clamp(min=0) if relu else out

    def deformed(name, x, offset):
        return ops.deform_conv2d(x, offset, numbers[f"{name}.weight"], None, 1, 1, 1).clamp(min=0)

    c = p = x
    for i in range(3):
        c, p = block(f"cls_convs.{i}", c), block(f"reg_convs.{i}", p)
    s = block("semantic_convs.0", p)
    e = block("semantic_convs.1", s)
    found = []
    for name, flipped in (("corner_pools.0", True), ("corner_pools.1", False)):
        a, b = (block(f"{name}.direction{k}_conv", s + e) for k in (1, 2))
        if flipped:
            pooled = a.flip(2).cummax(2)[0].flip(2) + b.flip(3).cummax(3)[0].flip(3)
        else:
            pooled = a.cummax(2)[0] + b.cummax(3)[0]
        u, v = block(f"{name}.aftpool_conv", pooled, False), block(f"{name}.conv1", s + e, False)
        found.append(block(f"{name}.conv2", (u + v).clamp(min=0)))
    heats = conv("tl_heat", found[0]), conv("br_heat", found[1])
    corners = torch.cat([*heats, conv("tl_offset", found[0]), conv("br_offset", found[1])], 1)
    c, p = c + e, p + e
    first = conv("reppoints_pts_init_out", conv("reppoints_pts_init_conv", p, relu=True))
    base = torch.tensor([[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]).view(1, 18, 1, 1)
    c = deformed("reppoints_cls_conv", torch.cat([c, corners], 1), first - base)
    p = deformed("reppoints_pts_refine_conv", torch.cat([p, corners], 1), first - base)
    last = conv("reppoints_pts_refine_out", p) + first
    return conv("reppoints_cls_out", c), first, last, conv("semantic_out", s), corners


def test_forward_by_hand():
    head = built().double()
    x = torch.randn(2, 8, 5, 7).double()
    expected = by_hand(head, x)
    found = head.train()([x])
    for name, (one,), other in zip(NAMES, found, expected, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")
    (scores,), (boxes,), (corners,) = head.eval()([x])
    torch.testing.assert_close(scores, expected[0])
    torch.testing.assert_close(boxes, expected[2][:, [1, 0, 3, 2]])  # y comes before x
    torch.testing.assert_close(corners, expected[4])


def test_a_tenth_of_the_gradient_goes_through_the_first_points():
    """And none where the last are counted from them."""
    x = torch.randn(1, 8, 5, 7)
    gradients = []
    for share in (0.1, 1.0):
        head = built(gradient_mul=share).train()
        scores, _, last, *_ = head([x])
        (scores[0].sum() + last[0].square().sum()).backward()
        gradients.append(head.reppoints_pts_init_out.weight.grad)
    assert gradients[1].any()
    torch.testing.assert_close(gradients[0], 0.1 * gradients[1], rtol=1e-3, atol=1e-5)


# Targets and losses.


def test_levels_are_told_apart_by_their_stride():
    torch.manual_seed(2)
    counts = [23, 9, 4]
    boxes = torch.rand(36, 4) * 50
    boxes[:, 2:] += boxes[:, :2]
    strides = torch.repeat_interleave(torch.tensor([4.0, 8.0, 16.0]), torch.tensor(counts))
    truth = objects((1, 3, 5, 40, 60), (0, 20, 20, 50, 44))
    ours, theirs = (
        TASK_UTILS.build(dict(type=name, topk=3))
        for name in ("swin_dense.LevelATSSAssigner", "mmdet.ATSSAssigner")
    )
    one_level = theirs.assign(InstanceData(priors=boxes), [36], truth)
    theirs = theirs.assign(InstanceData(priors=boxes), counts, truth)
    ours = ours.assign(InstanceData(priors=torch.cat([boxes, strides[:, None]], 1)), truth)
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert ours.gt_inds.any()
    assert not torch.equal(one_level.gt_inds, theirs.gt_inds)  # else levels did not matter


def test_targets_are_made_where_the_points_are():
    """mmdet's PointAssigner numbers them on the default device, which fails for those on a GPU."""
    head = built()
    seen = []

    def look(*_, **__):
        seen.append(torch.arange(3).device.type)
        raise LookupError

    head._get_targets_single = look
    places = [[torch.empty(6, 4, device="meta")]]
    with pytest.raises(LookupError):
        head.get_targets(places, [[torch.ones(6)]], [NONE], [META])
    assert seen == ["meta"]


def of_boxes(head, found, truth):
    return head.loss_by_feat(*found, truth, [META] * len(truth))


def generalized_iou(one, other):
    """With 1 more in every width and height, by hand."""

    def area(x1, y1, x2, y2):
        return (x2 - x1 + 1) * (y2 - y1 + 1)

    low = [max(a, b) for a, b in zip(one[:2], other[:2], strict=True)]
    high = [min(a, b) for a, b in zip(one[2:], other[2:], strict=True)]
    sides = [max(b - a + 1, 0) for a, b in zip(low, high, strict=True)]
    common = sides[0] * sides[1]
    union = area(*one) + area(*other) - common
    around = area(
        *[min(a, b) for a, b in zip(one[:2], other[:2], strict=True)],
        *[max(a, b) for a, b in zip(one[2:], other[2:], strict=True)],
    )
    return common / union - (around - union) / around


def plain_iou(one, other):
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return width * height / (sum(areas) - width * height)


def test_losses_of_boxes_by_hand():
    """Which places are whose is mmdet's affair; here is what becomes of them."""
    head = built()
    scores, first, last, *others = answers()
    truth, assigned = [SOME, NONE], {}
    theirs = head.get_targets

    def noted(*arguments):
        assigned[arguments[-1]] = found = theirs(*arguments)
        return found

    head.get_targets = noted
    losses = of_boxes(head, (scores, first, last, *others), truth)
    sums = dict(init=0.0, refine=0.0, cls=0.0)
    counts = {stage: found[-1] for stage, found in assigned.items()}
    for stage, points in (("init", first), ("refine", last)):
        labels, _, boxes, *_ = assigned[stage]
        positives = sum((level < CLASSES).sum().item() for level in labels)
        assert counts[stage] == positives + 1  # an image without objects counts as one
        assert positives > 2
        for level, stride in enumerate(STRIDES):
            width = SIZES[level][1]
            for image, place in torch.cartesian_prod(
                torch.arange(2), torch.arange(math.prod(SIZES[level]))
            ).tolist():
                row, column = divmod(place, width)
                label = labels[level][image, place].item()
                logits = scores[level][image, :, row, column].double()
                y1, x1, y2, x2 = points[level][image, :4, row, column].tolist()
                box = [(x + column) * stride for x in (x1, x2)] + [
                    (y + row) * stride for y in (y1, y2)
                ]
                box = [box[0], box[2], box[1], box[3]]
                wanted = boxes[level][image, place].tolist()
                if label < CLASSES:
                    unit = 4 * stride
                    given = ([v / unit for v in b] for b in (box, wanted))
                    sums[stage] += 1 - generalized_iou(*given)
                if stage == "refine":
                    for c, logit in enumerate(logits.tolist()):
                        p = 1 / (1 + math.exp(-logit))
                        q = plain_iou(box, wanted) if c == label else 0.0
                        cross = -q * math.log(p) - (1 - q) * math.log(1 - p)
                        sums["cls"] += abs(q - p) ** 2 * cross
    assert losses["loss_pts_init"].item() == pytest.approx(sums["init"] / counts["init"], rel=1e-4)
    refined = 2 * sums["refine"] / counts["refine"]
    assert losses["loss_pts_refine"].item() == pytest.approx(refined, rel=1e-4)
    assert losses["loss_cls"].item() == pytest.approx(sums["cls"] / counts["refine"], rel=1e-4)


@pytest.mark.parametrize("start", [(0.3, 0.2), (-0.3, 0.2), (0.3, -0.2), (-0.3, -0.2)])
def test_a_box_grows_from_two_points_that_have_changed_places(start):
    """In units of 32 pixels; mmdet's GIoU takes a box for one if both of its sides are negative."""
    head = built()
    width, height = start
    truth = torch.tensor([[[-0.9, -0.8, 0.7, 1.0]]])
    strides = torch.tensor([[8.0]])
    found = (None, None, [32 * truth], None, [torch.ones(1, 1, 4)], 1)
    plain = head.loss_bbox_init
    losses = {
        "ours": lambda box: head._loss_of_boxes(plain, 32 * box, strides, found),
        "plain": lambda box: plain(box[0], truth[0]),
    }
    last = {}
    for name, loss in losses.items():
        box = torch.tensor([[[-width, -height, width, height]]]) / 2
        box.requires_grad_()
        optimizer = torch.optim.Adam([box], lr=0.02)
        for _ in range(400):
            optimizer.zero_grad()
            value = loss(box)
            value.backward()
            optimizer.step()
        last[name] = value.item()
    assert last["ours"] == pytest.approx(0, abs=0.05)
    if max(start) < 0:
        assert last["plain"] < -1  # else there was nothing to mend


def test_losses_of_corners_by_hand():
    """Of heat and offset maps that have their own tests in test_corners.py."""
    head = built()
    *others, corners = answers()
    truth = [SOME, NONE]
    losses = of_boxes(head, (*others, corners), truth)
    heat_loss = offset_loss = 0.0
    for side, (heat, dx) in zip((slice(0, 2), slice(2, 4)), ((0, 2), (1, 4)), strict=True):
        wanted, to_corner = head._corner_targets(truth, side, SIZES)
        given = torch.cat([x.flatten(2) for x in corners], 2).double()  # (B, 6, P)
        positives = (wanted == 1).sum(1).tolist()
        assert positives[0] > 4
        assert positives[1] == 0
        count = sum(max(n, 1) for n in positives)
        for image in range(2):
            for place in range(wanted.shape[1]):
                p = 1 / (1 + math.exp(-given[image, heat, place].item()))
                y = wanted[image, place].item()
                if y == 1:
                    heat_loss -= (1 - p) ** 2 * math.log(p) / count
                    for axis in range(2):
                        off = given[image, dx + axis, place] - to_corner[axis, image, place]
                        off, beta = abs(off.item()), 1 / 9
                        part = off * off / (2 * beta) if off < beta else off - beta / 2
                        offset_loss += part / count
                else:
                    heat_loss -= (1 - y) ** 4 * p**2 * math.log(1 - p) / count
    assert losses["loss_heat"].item() == pytest.approx(0.25 * heat_loss / 2, rel=1e-4)
    assert losses["loss_offset"].item() == pytest.approx(offset_loss / 2, rel=1e-4)


def test_each_corner_has_its_maps():
    """The answer that is right where the targets say so, and wrong elsewhere."""
    head = built()
    *others, corners = answers()
    for heat, dx, side in ((0, 2, slice(0, 2)), (1, 4, slice(2, 4))):
        wanted, to_corner = head._corner_targets([SOME, SOME], side, SIZES)
        counts = [h * w for h, w in SIZES]
        for level, hot, off in zip(
            corners, wanted.split(counts, 1), to_corner.split(counts, 2), strict=True
        ):
            level[:, heat] = torch.where(hot == 1, 9.0, -9.0).view(2, *level.shape[2:])
            level[:, dx : dx + 2] = off.transpose(0, 1).reshape(2, 2, *level.shape[2:])
    losses = of_boxes(head, (*others, corners), [SOME, SOME])
    assert losses["loss_heat"] < 1e-3
    assert losses["loss_offset"] == 0


def painted(truth):
    """1 / area of the smallest box of a class over each cell of 8 pixels, cell by cell."""
    out = torch.zeros(CLASSES, *SIZES[0])
    for label, (x1, y1, x2, y2) in zip(truth.labels.tolist(), truth.bboxes.tolist(), strict=True):
        for i in range(SIZES[0][0]):
            for j in range(SIZES[0][1]):
                if y1 // 8 <= i <= y2 // 8 and x1 // 8 <= j <= x2 // 8:
                    weight = 1 / ((x2 - x1) * (y2 - y1))
                    out[label, i, j] = max(out[label, i, j].item(), weight)
    return out


def test_the_map_of_classes_by_hand():
    found = semantic_weights(SOME.bboxes, SOME.labels, CLASSES, SIZES[0], 8)
    torch.testing.assert_close(found, painted(SOME))
    inner, outer = found[1, 6, 5], found[1, 4, 3]
    assert inner > outer > 0


def test_boxes_at_and_over_the_border_of_the_map_of_classes():
    truth = objects((0, -20, 8, -1, 16), (2, 216, 152, 260, 170), (1, 40, 40, 40, 40))
    found = semantic_weights(truth.bboxes, truth.labels, CLASSES, SIZES[0], 8)
    assert found[0, 1:3, 0].tolist() == pytest.approx([1 / 152] * 2)
    assert found[2, 19, 27].item() == pytest.approx(1 / (44 * 18))
    assert found[1, 5, 5] == 1  # no area: that of a pixel
    assert (found > 0).sum() == 4


@pytest.mark.parametrize("truth", [[SOME, NONE], [NONE, SOME], [NONE, NONE]])
def test_the_loss_of_the_map_of_classes_by_hand(truth):
    head = built()
    *others, semantics, corners = answers()
    losses = of_boxes(head, (*others, semantics, corners), truth)
    positive = negative = weight = count = 0.0
    for image, own in enumerate(truth):
        finest = painted(own)
        for logits in semantics:
            height, width = logits.shape[2:]
            for c in range(CLASSES):
                for i in range(height):
                    for j in range(width):
                        p = 1 / (1 + math.exp(-logits[image, c, i, j].item()))
                        w = finest[c, i * 20 // height, j * 28 // width].item()
                        if w:
                            positive -= 0.25 * w * (1 - p) ** 2 * math.log(p)
                            weight += w
                            count += 1
                        else:
                            negative -= 0.75 * p**2 * math.log(1 - p)
    expected = positive / (weight or 1) + negative / (count or 1)
    assert losses["loss_semantic"].item() == pytest.approx(0.1 * expected, rel=1e-4)


def test_autocast_rounds_no_loss():
    head = built()
    found = [[x.bfloat16() for x in level] for level in answers()]
    exact = of_boxes(head, [[x.float() for x in level] for level in found], [SOME, NONE])
    with torch.autocast("cpu", torch.bfloat16):
        losses = of_boxes(head, found, [SOME, NONE])
    assert losses.keys() == exact.keys()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, exact[name]), name


@pytest.mark.parametrize("truth", [[SOME, SOME], [NONE, NONE]])
def test_extreme_answers_give_finite_losses_and_gradients(truth):
    head = built()
    found = [[(300 * x).requires_grad_() for x in level] for level in answers()]
    losses = of_boxes(head, found, truth)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for level in found for x in level)


# Predictions.


def predicted(corners):
    """Boxes of one hot place on the first, third and fourth level each, by class."""
    head = built().eval()
    scores = [torch.full((1, CLASSES, *size), -9.0) for size in SIZES]
    points = [torch.zeros(1, 18, *size) for size in SIZES]
    for label, (level, row, column) in enumerate([(0, 4, 6), (2, 3, 2), (3, 1, 1)]):
        scores[level][0, label, row, column] = 2.0
        points[level][0, :4, row, column] = torch.tensor([-1.0, -0.5, 1.25, 1.5])
    boxes = [head.points2bbox(x) for x in points]
    found = head.predict_by_feat(scores, boxes, corners, batch_img_metas=[META])[0]
    assert found.labels.tolist() == [0, 1, 2]
    return found.bboxes


def nowhere():
    """Corners without heat: each box's end goes to the first of its four places."""
    return [torch.zeros(1, 6, *size) for size in SIZES]


def test_corners_without_heat_fall_on_places():
    found = predicted(nowhere())
    assert found[0].tolist() == [44, 24, 60, 42]  # of the finest level: as its points say
    # (2 - 0.5, 3 - 1, 2 + 1.5, 3 + 1.25) * 32 = 48, 64, 112, 136, places of 8 pixels
    assert found[1].tolist() == [48, 64, 112, 136]
    # (0.5, 0, 2.5, 2.25) * 64 = 32, 0, 160, 144, places of 16; (10, 9) becomes (10, 8)
    assert found[2].tolist() == [32, 0, 160, 128]


def test_boxes_move_to_the_corners_that_finer_levels_see():
    corners = nowhere()
    corners[0][0, 0, 9, 7] = 3.0  # top left, at (56, 72): one of the four of (48, 64)
    corners[0][0, 2:4, 9, 7] = torch.tensor([0.25, -0.5])
    corners[0][0, 1, 9, 7] = 8.0  # the other corner's heat does not matter
    corners[0][0, 4:6, 17, 14] = torch.tensor([0.125, 0.75])
    corners[1][0, 1, 9, 10] = 1.0  # bottom right of the coarser box, at (160, 144)
    corners[1][0, 4:6, 9, 10] = torch.tensor([9.0, 9.0])  # out of the image
    found = predicted(corners)
    assert found[0].tolist() == [44, 24, 60, 42]
    assert found[1].tolist() == [58, 68, 113, 142]
    assert found[2].tolist() == [32, 0, 214, 150]


def test_boxes_are_those_of_the_original_image_and_exact():
    head = built().eval()
    scores = [torch.full((1, CLASSES, *size), -9.0) for size in SIZES]
    scores[0][0, 2, 19, 25] = 2.0
    points = [torch.zeros(1, 18, *size) for size in SIZES]
    points[0][0, :4, 19, 25] = torch.tensor([-2.0, -0.25, 0.0, 0.5])
    boxes = [head.points2bbox(x.bfloat16()) for x in points]
    meta = META | dict(scale_factor=(2.0, 0.5))
    found = head.predict_by_feat(
        [x.bfloat16() for x in scores],
        boxes,
        [x.bfloat16() for x in nowhere()],
        batch_img_metas=[meta],
        rescale=True,
    )[0]
    assert found.bboxes.dtype == torch.float32
    assert found.bboxes.tolist() == [[198 / 2, 136 / 0.5, 204 / 2, 150 / 0.5]]


def test_nothing_found():
    head = built().eval()
    scores = [torch.full((1, CLASSES, *size), -9.0) for size in SIZES]
    boxes = [torch.zeros(1, 4, *size) for size in SIZES]
    found = head.predict_by_feat(scores, boxes, nowhere(), batch_img_metas=[META])[0]
    assert len(found) == 0
