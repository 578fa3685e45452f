"""Detectors with anchors: RetinaNet, ATSS, and those with a second stage, Mask and Cascade R-CNN.

The formulas are those of mmdet's heads, whose layers, anchors and coders compute here too.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from swin_dense.export.graphs.fixed_rows import NOTHING, at, best, uncovered
from swin_dense.export.graphs.graph import Graph, Size, boxes_scale

CANDIDATES = 2000  # boxes of an image that suppression looks at, where mmdet takes all


class OneStage(Graph):
    """A detector whose dense head finds the boxes: RetinaNet, ATSS."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find boxes (B, K, 4), their scores and labels (B, K)."""
        head, rule = self.model.bbox_head, self.model.test_cfg
        rows = []
        for scores, deltas, priors, quality in _levels(head, self.model.extract_feat(image)):
            scores = torch.where(scores > rule["score_thr"], scores, NOTHING)
            classes = scores.shape[2]
            scores, places = best(scores.flatten(1), rule["nms_pre"])
            which, labels = places // classes, places % classes
            if quality is not None:
                good = scores * at(quality, which)
                scores = torch.where(scores >= 0, good, NOTHING)
            priors = priors.expand(scores.shape[0], -1, -1)
            boxes = _decoded(head.bbox_coder, at(priors, which), at(deltas, which), inside)
            boxes = boxes * boxes_scale(inside, size)
            rows.append((boxes, _large_enough(boxes, scores, rule), labels))
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*rows, strict=True))
        threshold = rule["nms"]["iou_threshold"]
        return shown(
            *uncovered(boxes, scores, labels, head.num_classes, threshold, rule["max_per_img"])
        )


class TwoStage(Graph):
    """A detector that looks a second time at what the first stage proposes."""

    OUTPUTS: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find boxes (B, K, 4), scores and labels (B, K), and masks (B, K, h, w) of boxes."""
        maps = self.model.extract_feat(image)
        proposals, valid = self._proposals(maps, inside)
        boxes, scores = self._classified(maps, proposals, valid, inside)
        boxes, scores, labels = self._chosen(boxes * boxes_scale(inside, size), scores)
        return shown(boxes, scores, labels)

    def _proposals(self, maps: tuple[Tensor, ...], inside: Size) -> tuple[Tensor, Tensor]:
        """Return (B, P, 4) boxes of the resized image, and (B, P) which of them are none."""
        head, rule = self.model.rpn_head, self.model.test_cfg["rpn"]
        rows = []
        for level, (scores, deltas, priors, _) in enumerate(_levels(head, maps)):
            scores, places = best(scores.flatten(1), rule["nms_pre"])
            priors = priors.expand(scores.shape[0], -1, -1)
            boxes = _decoded(head.bbox_coder, at(priors, places), at(deltas, places), inside)
            scores = _large_enough(boxes, scores, rule)
            rows.append((boxes, scores, torch.full_like(places, level)))
        boxes, scores, levels = (torch.cat(part, 1) for part in zip(*rows, strict=True))
        threshold, count = rule["nms"]["iou_threshold"], rule["max_per_img"]
        boxes, scores, _ = uncovered(boxes, scores, levels, len(rows), threshold, count)
        return boxes, scores >= 0

    def _classified(
        self, maps: tuple[Tensor, ...], proposals: Tensor, valid: Tensor, inside: Size
    ) -> tuple[Tensor, Tensor]:
        """Return boxes (B, P, 1 or classes, 4) and scores (B, P, classes)."""
        roi = self.model.roi_head
        several = isinstance(roi.bbox_head, nn.ModuleList)
        heads = list(roi.bbox_head) if several else [roi.bbox_head]
        extractors = list(roi.bbox_roi_extractor) if several else [roi.bbox_roi_extractor]
        batch, count = proposals.shape[:2]
        logits, boxes = [], proposals
        for stage, (head, extractor) in enumerate(zip(heads, extractors, strict=True)):
            found, deltas = head(pooled(extractor, maps, boxes))
            logits.append(found)
            flat = boxes.flatten(0, 1)
            if stage < len(heads) - 1 and not head.reg_class_agnostic:
                surest = found[:, :-1].argmax(1)[:, None, None].expand(-1, 1, 4)
                deltas = deltas.unflatten(1, (head.num_classes, 4)).gather(1, surest)[:, 0]
            boxes = head.bbox_coder.decode(flat, deltas, max_shape=inside)
            boxes = boxes.unflatten(0, (batch, count))
        scores = (sum(logits) / len(logits)).softmax(-1)[:, :-1].unflatten(0, (batch, count))
        return boxes.unflatten(2, (-1, 4)), torch.where(valid[..., None], scores, NOTHING)

    def _chosen(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rule, classes = self.model.test_cfg["rcnn"], scores.shape[2]
        scores = torch.where(scores > rule["score_thr"], scores, NOTHING)
        scores, places = best(scores.flatten(1), CANDIDATES)
        labels = places % classes
        places = places // classes if boxes.shape[2] == 1 else places
        boxes = at(boxes.flatten(1, 2), places)
        threshold = rule["nms"]["iou_threshold"]
        return uncovered(boxes, scores, labels, classes, threshold, rule["max_per_img"])


class TwoStageMasks(TwoStage):
    """One that also finds a mask in each box."""

    OUTPUTS = (*TwoStage.OUTPUTS, "box_masks")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(image)
        proposals, valid = self._proposals(maps, inside)
        boxes, scores = self._classified(maps, proposals, valid, inside)
        scale = boxes_scale(inside, size)
        boxes, scores, labels = self._chosen(boxes * scale, scores)
        masks = self._masks(maps, boxes / scale, labels)
        masks = torch.where((scores >= 0)[..., None, None], masks, 0.0)
        return *shown(boxes, scores, labels), masks

    def _masks(self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor) -> Tensor:
        """Return the probability (B, K, h, w) of the object in each cell of its box."""
        roi = self.model.roi_head
        several = isinstance(roi.mask_head, nn.ModuleList)
        heads = list(roi.mask_head) if several else [roi.mask_head]
        extractor = roi.mask_roi_extractor
        extractors = list(extractor) if isinstance(extractor, nn.ModuleList) else [extractor]
        total = []
        for head, one in zip(heads, extractors * (len(heads) // len(extractors)), strict=True):
            masks = head(pooled(one, maps, boxes))  # (B * K, classes, h, w)
            if masks.shape[1] > 1:
                which = labels.flatten()[:, None, None, None].expand(-1, 1, *masks.shape[2:])
                masks = masks.gather(1, which)
            total.append(masks[:, 0].sigmoid())
        found = sum(total) / len(total)
        return found.unflatten(0, labels.shape)


def shown(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows as a file gives them: those that are none have score 0, label -1 and no area."""
    there = scores >= 0
    return (
        torch.where(there[..., None], boxes, 0.0),
        scores.clamp(min=0),
        torch.where(there, labels, -1),
    )


def pooled(extractor: Any, maps: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """Return what the maps hold in boxes (B, N, 4): (B * N, C, h, w).

    Each box is looked up in the map of its size (arXiv 1612.03144, eq. 1). In the others it shrinks
    to a point, which costs nothing, and what is found there is not added.
    """
    batch, count = boxes.shape[:2]
    image = torch.arange(batch, dtype=boxes.dtype, device=boxes.device)
    rois = torch.cat([image[:, None, None].expand(-1, count, 1), boxes], 2).flatten(0, 1)
    layers = extractor.roi_layers
    sides = (rois[:, 3:] - rois[:, 1:3]).clamp(min=0)
    scale = (sides[:, 0] * sides[:, 1]).sqrt()
    level = (scale / extractor.finest_scale + 1e-6).log2().floor().clamp(0, len(layers) - 1)
    found = []
    for number, (layer, values) in enumerate(zip(layers, maps[: len(layers)], strict=True)):
        here = (level == number)[:, None]
        at_level = torch.cat([rois[:, :1], torch.where(here, rois[:, 1:], 0.0)], 1)
        part = _aligned(layer, values, at_level)
        found.append(torch.where(here[..., None, None], part, 0.0))
    return sum(found[1:], found[0])


def _aligned(layer: Any, values: Tensor, rois: Tensor) -> Tensor:
    height, width = layer.output_size
    return torch.ops.swin_dense.roi_align(
        values, rois, height, width, layer.spatial_scale, layer.sampling_ratio, False, layer.aligned
    )[0]


def _levels(head: Any, maps: tuple[Tensor, ...]) -> Any:
    """Yield of each map scores (B, N, C), deltas (B, N, 4), anchors (1, N, 4), quality (B, N)."""
    outputs = head(maps)
    logits, deltas = outputs[:2]
    quality = outputs[2] if len(outputs) > 2 else [None] * len(logits)
    sizes = [values.shape[-2:] for values in logits]
    priors = head.prior_generator.grid_priors(sizes, dtype=logits[0].dtype, device=logits[0].device)
    for one, delta, anchors, good in zip(logits, deltas, priors, quality, strict=True):
        rows = _rows(one, head.cls_out_channels)
        scores = rows.sigmoid() if head.use_sigmoid_cls else rows.softmax(-1)[..., :-1]
        if good is not None:
            good = _rows(good, 1)[..., 0].sigmoid()
        yield scores, _rows(delta, 4), anchors[None], good


def _rows(maps: Tensor, columns: int) -> Tensor:
    """(B, anchors * columns, H, W) -> (B, H * W * anchors, columns)."""
    return maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, columns))


def _large_enough(boxes: Tensor, scores: Tensor, rule: Mapping[str, Any]) -> Tensor:
    """Return scores, NOTHING where a side of the box is not longer than the rule's least."""
    least = rule.get("min_bbox_size", -1)
    if least < 0:
        return scores
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.where((sides > least).all(-1), scores, NOTHING)


def _decoded(coder: Any, priors: Tensor, deltas: Tensor, inside: Size) -> Tensor:
    """Return boxes (B, N, 4) of the resized image."""
    flat = coder.decode(priors.flatten(0, 1), deltas.flatten(0, 1), max_shape=inside)
    return flat.unflatten(0, deltas.shape[:2])
