"""Detectors and segmentors whose objects are queries: DINO and Mask2Former."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.export.graphs.fixed_rows import at, best
from swin_dense.export.graphs.graph import Graph, Size, boxes_scale, resized
from swin_dense.export.graphs.traceable import Sizes, centres


class Dino(Graph):
    """mmdet's DINO: queries chosen from the encoder, refined by the decoder (arXiv 2203.03605)."""

    OUTPUTS = ("boxes", "scores", "labels")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find boxes (B, K, 4), their scores and labels (B, K), the best first."""
        model = self.model
        maps = model.extract_feat(image)
        rows, places, sizes = self._rows(maps)
        ones = rows.new_ones((rows.shape[0], len(sizes), 2))
        memory = model.encoder(
            query=rows,
            query_pos=places,
            key_padding_mask=None,
            spatial_shapes=sizes,
            level_start_index=None,
            valid_ratios=ones,
        )
        query, points = self._chosen(memory, sizes)
        states, references = model.decoder(
            query=query,
            value=memory,
            key_padding_mask=None,
            self_attn_mask=None,
            reference_points=points,
            spatial_shapes=sizes,
            level_start_index=None,
            valid_ratios=ones,
            reg_branches=model.bbox_head.reg_branches,
        )
        logits, boxes = model.bbox_head(states, list(references))
        return self._boxes(logits[-1], boxes[-1], inside, size)

    def _rows(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Sizes]:
        rows, places, sizes = [], [], []
        for level, values in enumerate(maps):
            place = self.model.positional_encoding(None, input=values)
            place = place + self.model.level_embed[level].view(1, -1, 1, 1)
            rows.append(values.flatten(2).transpose(1, 2))
            places.append(place.flatten(2).transpose(1, 2))
            sizes.append((values.shape[2], values.shape[3]))
        return torch.cat(rows, 1), torch.cat(places, 1), sizes

    def _chosen(self, memory: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Return the queries (B, Q, C) and where they start (B, Q, 4), centre and sides."""
        model = self.model
        found, boxes = self._proposed(memory, sizes)
        last = model.decoder.num_layers
        scores = model.bbox_head.cls_branches[last](found).max(-1)[0]
        boxes = model.bbox_head.reg_branches[last](found) + boxes
        places = best(scores, model.num_queries, none=-math.inf)[1]
        query = model.query_embedding.weight.expand(memory.shape[0], -1, -1)
        return query, at(boxes, places).sigmoid()

    def _proposed(self, memory: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Return the encoder's rows (B, K, C), projected, and a box (1, K, 4) for each place.

        Boxes near the border of the image are none (arXiv 2010.04159, appendix A.4).
        """
        boxes = []
        for level, (height, width) in enumerate(sizes):
            centre = centres(height, width, memory)
            boxes.append(torch.cat([centre, torch.full_like(centre, 0.05 * 2.0**level)], 1))
        box = torch.cat(boxes)[None]
        inside = ((box > 0.01) & (box < 0.99)).all(-1, keepdim=True)
        box = torch.where(inside, (box / (1 - box)).log(), math.inf)
        rows = self.model.memory_trans_fc(torch.where(inside, memory, 0.0))
        return self.model.memory_trans_norm(rows), box

    def _boxes(
        self, logits: Tensor, boxes: Tensor, inside: Size, size: Tensor
    ) -> tuple[Tensor, ...]:
        head = self.model.bbox_head
        count, classes = head.test_cfg.get("max_per_img", logits.shape[1]), logits.shape[2]
        scores, places = logits.sigmoid().flatten(1).topk(count, dim=1)
        centre, sides = at(boxes, places // classes).split(2, 2)
        corners = torch.cat([centre - sides / 2, centre + sides / 2], 2).clamp(0, 1)
        height, width = inside
        pixels = torch.stack([scores.new_ones(()) * side for side in (width, height) * 2])
        return corners * pixels * boxes_scale(inside, size), scores, places % classes


class Masks(Graph):
    """mmdet's Mask2Former for instances (arXiv 2112.01527)."""

    OUTPUTS = ("boxes", "scores", "labels", "masks")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find boxes (B, K, 4), scores, labels (B, K) and masks (B, K, h, w) of 0 and 1."""
        fusion = self.model.panoptic_fusion_head
        logits, masks = _masks(self.model.panoptic_head, self.model.extract_feat(image), image)
        count, classes = fusion.test_cfg.get("max_per_image", 100), fusion.num_classes
        shares = logits.softmax(-1)[..., :-1].flatten(1)
        scores, places = shares.topk(count, dim=1)
        labels = places % classes
        which = (places // classes)[..., None, None].expand(-1, -1, *masks.shape[2:])
        masks = resized(masks.gather(1, which), inside, size)
        there = masks > 0
        cells = there.to(masks.dtype)
        sure = (masks.sigmoid() * cells).flatten(2).sum(2) / (cells.flatten(2).sum(2) + 1e-6)
        things = labels < fusion.num_things_classes
        scores = torch.where(things, scores * sure, 0.0)
        labels = torch.where(things, labels, -1)
        return _around(there), scores, labels, there.to(torch.uint8)


class Panoptic(Graph):
    """mmdet's Mask2Former for disjoint segments."""

    OUTPUTS = ("segment_map", "scores", "labels")

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find the query (B, h, w) that has each pixel, and each query's score and label (B, Q).

        A pixel of none has Q. Queries of one label that is no thing are one segment.
        """
        fusion = self.model.panoptic_fusion_head
        rule = fusion.test_cfg
        logits, masks = _masks(self.model.panoptic_head, self.model.extract_feat(image), image)
        masks = resized(masks, inside, size).sigmoid()
        scores, labels = logits.softmax(-1).max(-1)
        keep = (labels != fusion.num_classes) & (scores > rule.get("object_mask_thr", 0.8))
        weights = torch.where(keep, scores, NONE)[..., None, None]
        owner = (weights * masks).argmax(1)  # (B, h, w)
        queries = torch.arange(masks.shape[1], device=masks.device)
        mine = owner[:, None] == queries[:, None, None]
        sure = masks >= 0.5
        area = mine.flatten(2).sum(2).float()
        whole = sure.flatten(2).sum(2).float()
        keep = keep & (area > 0) & (whole > 0) & (area >= whole * rule.get("iou_thr", 0.8))
        shown = mine & keep[..., None, None]
        if rule.get("filter_low_score", False):
            shown = shown & sure
        ids = torch.where(shown.any(1), owner, masks.shape[1])
        return ids, torch.where(keep, scores, 0.0), torch.where(keep, labels, -1)


class MaskLabelMaps(Graph):
    """mmseg's Mask2Former: the class of each pixel."""

    OUTPUTS = ("label_map",)

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find the class (B, h, w) of each pixel of the image as it came."""
        maps = self.model.extract_feat(image)
        logits, masks = _masks(self.model.decode_head, maps, image)
        shares = logits.softmax(-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", shares, masks.sigmoid())
        return (resized(scores, inside, size).argmax(1),)


NONE = -1.0  # the weight of a query that owns no pixel


def _masks(head: Any, maps: tuple[Tensor, ...], image: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the last layer says: logits (B, Q, classes + 1), masks (B, Q, H, W)."""
    logits, masks = head(maps, ())
    size = image.shape[2:]
    return logits[-1], F.interpolate(masks[-1], size=size, mode="bilinear", align_corners=False)


def _around(masks: Tensor) -> Tensor:
    """Return the box (B, K, 4) of each mask (B, K, h, w) of truths; 0 where it is empty."""
    sides = []
    for axis in (2, 3):  # over rows: columns with a pixel, then the other way
        some = masks.any(axis)
        length = some.shape[2]
        place = torch.arange(length, device=masks.device)
        first = torch.where(some, place, length).amin(2)
        last = torch.where(some, place + 1, 0).amax(2)
        sides.append((torch.minimum(first, last).float(), last.float()))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 2)
