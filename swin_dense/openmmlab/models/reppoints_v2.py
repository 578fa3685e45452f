"""RepPoints V2: points of objects, verified by corners and by a map of classes (arXiv 2007.08508).

Read from the bottom: the head is what detectors see. It is the one of arXiv 2103.14030, table 2a.
Letters: B images, C classes, n objects, P places of all levels of an image, h w of one level.
A place is at (column, row) * stride pixels; a box is (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.ops import DeformConv2d
from mmdet.models.task_modules import ATSSAssigner
from mmdet.models.utils import filter_scores_and_topk
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from swin_dense.openmmlab.models.corners import CornerPools, corner_targets, radii, snap
from swin_dense.openmmlab.models.float32 import Float32RepPointsHead, float32_at_least
from swin_dense.registry import MODELS, TASK_UTILS

MAPS = 6  # of the corners: heat top left, bottom right, then dx, dy top left, dx, dy bottom right
HEAT = (slice(0, 1), slice(1, 2))  # top left, bottom right
OFFSET = (slice(2, 4), slice(4, 6))
SIDES = (slice(0, 2), slice(2, 4))  # of a box
CLOSE = 1e-4  # a heat comes no closer to 0 and 1 in the loss, as in mmdet's later CenterNet
# Added to every width and height of GIoU, in its unit; theirs counts so. Two points that start near
# each other need it: without, a box whose corners have changed places has an area as any other in
# mmdet's GIoU, and half of them grow for ever.
MARGIN = 1.0
INIT = dict(
    type="Normal",
    layer=["Conv2d", "DeformConv2d"],
    std=0.01,
    override=[
        dict(type="Normal", name=name, std=0.01, bias_prob=0.01)
        for name in ("reppoints_cls_out", "semantic_out", "tl_heat", "br_heat")
    ],
)


@TASK_UTILS.register_module()
class LevelATSSAssigner(ATSSAssigner):
    """mmdet's ATSS for priors that say themselves which level they are of.

    mmdet's head of RepPoints does not tell its assigner where a level ends.
    """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
    ) -> Any:
        """`pred_instances.priors` is (P, 5): boxes and the stride of their level, in its order."""
        _, counts = pred_instances.priors[:, 4].unique_consecutive(return_counts=True)
        return super().assign(pred_instances, counts.tolist(), gt_instances, gt_instances_ignore)


def semantic_weights(
    boxes: Tensor, labels: Tensor, classes: int, size: tuple[int, int], stride: int
) -> Tensor:
    """Filled boxes of each class: (n, 4), (n,) -> (classes, h, w).

    1 / area of the box in pixels where there is one, of the smallest of several; 0 elsewhere.
    """
    weights = boxes.new_zeros(classes, *size)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1.0)
    order = areas.argsort(descending=True)
    cells = (boxes[order] / stride).floor().long()
    cells = cells.clamp(min=0).minimum(cells.new_tensor([size[1] - 1, size[0] - 1] * 2))
    for label, (x1, y1, x2, y2), area in zip(
        labels[order].tolist(), cells.tolist(), areas[order].tolist(), strict=True
    ):
        weights[label, y1 : y2 + 1, x1 : x2 + 1] = 1 / area
    return weights


@MODELS.register_module()
class RepPointsV2Head(Float32RepPointsHead):
    """Points, corners and classes at the places of each level.

    The first point of a place is the top left corner of its box, the second the bottom right one;
    the others say where features are taken from. Losses are averaged over the objects, or over the
    places that are nearest to one, of all processes. What differs from the authors' code: the 1000
    candidates of a level are pairs of a box and a class, as mmdet has them now, and the map of
    classes is left out in tests, where nothing asks for it.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        loss_cls: dict[str, Any],
        loss_bbox_init: dict[str, Any],
        loss_bbox_refine: dict[str, Any],
        loss_heat: dict[str, Any],
        loss_offset: dict[str, Any],
        loss_semantic: dict[str, Any],
        norm_cfg: dict[str, Any],
        feat_channels: int = 256,
        point_feat_channels: int = 256,
        corner_channels: int = 64,
        stacked_convs: int = 3,
        num_points: int = 9,
        gradient_mul: float = 0.1,
        point_strides: Sequence[int] = (8, 16, 32, 64, 128),
        point_base_scale: int = 4,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        """
        Args:
            loss_cls: mmdet's quality focal loss.
            loss_heat: of the corners' heat, mmdet's Gaussian focal loss.
            loss_offset: of the corners' offset in strides.
            loss_semantic: mmdet's focal loss with reduction="sum"; the head averages.
            corner_channels: of the maps that corners are pooled from.
            gradient_mul: share of the gradient that goes back through the first points.
            point_base_scale: what the box losses count in, in strides.
            init_cfg: as the authors have it if None.

        The others are those of mmdet's RepPointsHead.
        """
        self.corner_channels = corner_channels
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            point_feat_channels=point_feat_channels,
            stacked_convs=stacked_convs,
            norm_cfg=norm_cfg,
            num_points=num_points,
            gradient_mul=gradient_mul,
            point_strides=point_strides,
            point_base_scale=point_base_scale,
            loss_cls=loss_cls,
            loss_bbox_init=loss_bbox_init,
            loss_bbox_refine=loss_bbox_refine,
            transform_method="corners",
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg or INIT,
        )
        self.loss_heat = MODELS.build(loss_heat)
        self.loss_offset = MODELS.build(loss_offset)
        self.loss_semantic = MODELS.build(loss_semantic)

    def _init_layers(self) -> None:
        super()._init_layers()
        width, norm = self.feat_channels, self.norm_cfg
        kernel = (width + MAPS, self.point_feat_channels, self.dcn_kernel, 1, self.dcn_pad)
        self.reppoints_cls_conv = DeformConv2d(*kernel)
        self.reppoints_pts_refine_conv = DeformConv2d(*kernel)
        # In lists, else mmengine initializes them once more by the rule of ConvModule.
        self.semantic_convs = nn.ModuleList(
            [
                ConvModule(width, width, 3, padding=1, norm_cfg=norm),
                ConvModule(width, width, 1, norm_cfg=norm),
            ]
        )
        self.semantic_out = nn.Conv2d(width, self.num_classes, 1)
        self.corner_pools = nn.ModuleList(
            CornerPools(width, self.corner_channels, directions, norm)
            for directions in (("top", "left"), ("bottom", "right"))
        )
        self.tl_heat = nn.Conv2d(width, 1, 3, padding=1)
        self.br_heat = nn.Conv2d(width, 1, 3, padding=1)
        self.tl_offset = nn.Conv2d(width, 2, 3, padding=1)
        self.br_offset = nn.Conv2d(width, 2, 3, padding=1)

    def points2bbox(self, pts: Tensor, y_first: bool = True) -> Tensor:
        """(B, 2 * points, ...) -> (B, 4, ...): the first point, then the second, in float32."""
        corners = float32_at_least(pts)[:, :4]
        return corners[:, [1, 0, 3, 2]] if y_first else corners

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Predict on one level.

        Args:
            x: (B, in_channels, h, w).

        Returns:
            In training: logits of the classes (B, C, h, w), the first and the last points
            (B, 2 * points, h, w) in strides from their place, y before x, logits of the map of
            classes (B, C, h, w), and the corners (B, MAPS, h, w), heat as logits. Else: logits,
            boxes (B, 4, h, w) in strides from their place, and the corners.
        """
        cls, pts = x, x
        for conv in self.cls_convs:
            cls = conv(cls)
        for conv in self.reg_convs:
            pts = conv(pts)
        shared = self.semantic_convs[0](pts)
        embedded = self.semantic_convs[1](shared)
        cls, pts = cls + embedded, pts + embedded
        corners = self._corners(shared + embedded)
        first = float32_at_least(
            self.reppoints_pts_init_out(self.relu(self.reppoints_pts_init_conv(pts)))
        )
        passed = (1 - self.gradient_mul) * first.detach() + self.gradient_mul * first
        offset = passed - self.dcn_base_offset.type_as(passed)
        cls = self.relu(self.reppoints_cls_conv(torch.cat([cls, corners], 1), offset))
        pts = self.relu(self.reppoints_pts_refine_conv(torch.cat([pts, corners], 1), offset))
        scores = self.reppoints_cls_out(cls)
        last = self.reppoints_pts_refine_out(pts) + first.detach()
        if self.training:
            return scores, first, last, self.semantic_out(shared), corners
        return scores, self.points2bbox(last), corners

    def _corners(self, x: Tensor) -> Tensor:
        """(B, feat_channels, h, w) -> (B, MAPS, h, w)."""
        top_left, bottom_right = (pool(x) for pool in self.corner_pools)
        heats = self.tl_heat(top_left), self.br_heat(bottom_right)
        return torch.cat([*heats, self.tl_offset(top_left), self.br_offset(bottom_right)], 1)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        pts_first: Sequence[Tensor],
        pts_last: Sequence[Tensor],
        semantics: Sequence[Tensor],
        corners: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses, in float32, of what `forward_single` gives for all levels."""
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            cls_scores, semantics, corners = (
                [float32_at_least(x) for x in maps] for maps in (cls_scores, semantics, corners)
            )
            truth = (batch_gt_instances, batch_img_metas, batch_gt_instances_ignore)
            return {
                **self._losses_of_boxes(cls_scores, pts_first, pts_last, *truth),
                **self._losses_of_corners(corners, batch_gt_instances),
                "loss_semantic": self._loss_of_semantics(semantics, batch_gt_instances),
            }

    def _losses_of_boxes(
        self,
        cls_scores: Sequence[Tensor],
        pts_first: Sequence[Tensor],
        pts_last: Sequence[Tensor],
        objects: Sequence[InstanceData],
        metas: Sequence[dict[str, Any]],
        ignored: Sequence[InstanceData] | None,
    ) -> dict[str, Tensor]:
        sizes = [_size(x) for x in cls_scores]
        places, valid = self.get_points(sizes, metas, cls_scores[0].device)
        about = torch.cat(places[0])  # x, y, stride, stride; the same for every image
        strides = about[:, 2:3]
        first, last = (
            _rows([self.points2bbox(x) for x in pts]) * strides + about[:, [0, 1, 0, 1]]
            for pts in (pts_first, pts_last)
        )  # (B, P, 4)
        priors = torch.cat([first.detach(), strides.expand(len(first), -1, -1)], -1)
        counts = [h * w for h, w in sizes]
        by_level = [list(own.split(counts)) for own in priors]
        rest = (objects, metas, ignored)
        flags = [list(own) for own in valid]  # they write into the lists
        first_loss = self._loss_of_boxes(
            self.loss_bbox_init, first, strides, self.get_targets(places, flags, *rest, "init")
        )
        found = self.get_targets(by_level, valid, *rest, "refine")
        labels, weights, boxes = (torch.cat(x, 1) for x in found[:3])
        quality = bbox_overlaps(last.detach(), boxes, is_aligned=True)
        loss_cls = self.loss_cls(
            _rows(cls_scores).flatten(0, 1),
            (labels.flatten(), quality.flatten()),
            weights.flatten(),
            avg_factor=reduce_mean(weights.new_tensor(float(found[-1]))),
        )
        return dict(
            loss_cls=loss_cls,
            loss_pts_init=first_loss,
            loss_pts_refine=self._loss_of_boxes(self.loss_bbox_refine, last, strides, found),
        )

    def _loss_of_boxes(self, loss: nn.Module, boxes: Tensor, strides: Tensor, found: tuple) -> Any:
        """(B, P, 4), (P, 1) and what `get_targets` returns."""
        truth, weights = torch.cat(found[2], 1), torch.cat(found[4], 1)
        margin = boxes.new_tensor([0.0, 0.0, MARGIN, MARGIN])
        unit = self.point_base_scale * strides
        given = (boxes / unit + margin, truth / unit + margin, weights)
        count = reduce_mean(boxes.new_tensor(float(found[-1])))
        return loss(*(x.flatten(0, 1) for x in given), avg_factor=count)

    def _losses_of_corners(
        self, corners: Sequence[Tensor], objects: Sequence[InstanceData]
    ) -> dict[str, Tensor]:
        sizes = [_size(x) for x in corners]
        found = _rows(corners).movedim(-1, 0)  # (MAPS, B, P)
        heats, offsets = [], []
        for heat, offset, side in zip(HEAT, OFFSET, SIDES, strict=True):
            wanted, to_corner = self._corner_targets(objects, side, sizes)
            taken = wanted == 1
            count = reduce_mean(taken.sum(1).clamp(min=1).sum().to(wanted))
            close = found[heat][0].sigmoid().clamp(CLOSE, 1 - CLOSE)
            heats.append(self.loss_heat(close, wanted, avg_factor=count))
            heavy = taken.to(wanted).expand(2, -1, -1)
            offsets.append(self.loss_offset(found[offset], to_corner, heavy, avg_factor=count))
        return dict(loss_heat=sum(heats) / 2, loss_offset=sum(offsets) / 2)

    def _corner_targets(
        self, objects: Sequence[InstanceData], side: slice, sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Heat (B, P) and offset (2, B, P)."""
        heats, offsets = [], []
        for own in objects:
            radius = radii(own.bboxes)
            levels = [
                corner_targets(own.bboxes[:, side], radius, size, stride)
                for size, stride in zip(sizes, self.point_strides, strict=True)
            ]
            heats.append(torch.cat([heat.flatten() for heat, _ in levels]))
            offsets.append(torch.cat([offset.flatten(1) for _, offset in levels], 1))
        return torch.stack(heats), torch.stack(offsets, 1)

    def _loss_of_semantics(
        self, semantics: Sequence[Tensor], objects: Sequence[InstanceData]
    ) -> Tensor:
        """Objects weigh by the inverse of their area, the rest all the same."""
        sizes = [_size(x) for x in semantics]
        finest = torch.stack(
            [
                semantic_weights(
                    own.bboxes, own.labels, self.num_classes, sizes[0], self.point_strides[0]
                )
                for own in objects
            ]
        )
        weights = _rows([F.interpolate(finest, size=size, mode="nearest") for size in sizes])
        wanted = weights > 0
        whole = reduce_mean(weights.sum()).clamp(min=1e-12)
        count = reduce_mean(wanted.sum().to(weights)).clamp(min=1.0)
        weights = torch.where(wanted, weights / whole, 1 / count)
        return self.loss_semantic(_rows(semantics), wanted, weights)

    def _predict_by_feat_single(
        self,
        cls_score_list: Sequence[Tensor],
        bbox_pred_list: Sequence[Tensor],
        score_factor_list: Sequence[Tensor],
        mlvl_priors: Sequence[Tensor],
        img_meta: dict[str, Any],
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceData:
        """mmdet's for one image, the corners of its boxes corrected; see `_verify`.

        The maps of the corners come as the score factors, which RepPoints have none of.
        """
        cfg = self.test_cfg if cfg is None else cfg
        found = []
        for level, (scores, boxes, places) in enumerate(
            zip(cls_score_list, bbox_pred_list, mlvl_priors, strict=True)
        ):
            kept, labels, _, rows = filter_scores_and_topk(
                scores.flatten(1).T.sigmoid(),
                cfg.score_thr,
                cfg.nms_pre,
                dict(boxes=boxes.flatten(1).T, places=places),
            )
            stride, shape = self.point_strides[level], img_meta["img_shape"]
            decoded = self._bbox_decode(rows["places"], rows["boxes"], stride, shape)
            decoded = self._verify(decoded, level, score_factor_list, shape)
            found.append(InstanceData(bboxes=decoded, scores=kept, labels=labels))
        results = InstanceData.cat(found)
        return self._bbox_post_process(
            results, cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta
        )

    def _verify(
        self, boxes: Tensor, level: int, corners: Sequence[Tensor], shape: tuple[int, int]
    ) -> Tensor:
        """(n, 4) of a level -> (n, 4), their corners where a finer level sees them.

        The finest level's boxes stay, the next two look at its corners, the two after them at
        those of the second, and so on.
        """
        if level == 0:
            return boxes
        finer = (level - 1) // 2
        maps = float32_at_least(corners[finer])
        ends = [
            snap(boxes[:, side], maps[heat][0], maps[offset], self.point_strides[finer])
            for heat, offset, side in zip(HEAT, OFFSET, SIDES, strict=True)
        ]
        limit = boxes.new_tensor([shape[1], shape[0]])
        return torch.cat([end.clamp(min=0).minimum(limit) for end in ends], 1)


def _rows(maps: Sequence[Tensor]) -> Tensor:
    """(B, ., h, w) of each level -> (B, P, .)."""
    return torch.cat([x.flatten(2) for x in maps], 2).transpose(1, 2)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
