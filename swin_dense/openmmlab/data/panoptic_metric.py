"""Panoptic quality: how well segments match (arXiv 1801.00868)."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.structures import INSTANCE_OFFSET
from mmengine.evaluator import BaseMetric

from swin_dense.datasets import coco_panoptic, label_maps
from swin_dense.registry import METRICS

VOID = coco_panoptic.VOID
GROUPS = ("", "_th", "_st")  # all classes, things, stuff


@METRICS.register_module()
class PanopticMetric(BaseMetric):
    """PQ, SQ and RQ in percent: of all classes, of the things (_th) and of the stuff (_st).

    A mean is taken over the classes that the truth or the predictions show; the number of a group
    without such a class is absent. After `compute_metrics`, `per_image` lists (path, rows), where
    rows is label -> (sum of IoU, hits, false segments, missed segments).
    """

    default_prefix = "panoptic"

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.per_class: dict[str, dict[str, float]] = {}
        self.per_image: list[tuple[str, dict[int, np.ndarray]]] = []

    @staticmethod
    def names(config: Mapping[str, Any]) -> list[str]:
        """Return the names of the numbers, without prefix."""
        return [name + group for group in GROUPS for name in ("PQ", "SQ", "RQ")]

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            path, segments = sample["seg_map_path"], sample["segments"]
            truth = coco_panoptic.read_segments(path, [s["id"] for s in segments])
            found = sample["pred_panoptic_seg"]["sem_seg"][0].cpu().numpy()
            label_maps.require_same_size(sample["img_path"], found.shape, path, truth.shape)
            nothing = len(self.dataset_meta["classes"])
            self.results.append((sample["img_path"], compare(truth, segments, found, nothing)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        total: collections.defaultdict[int, np.ndarray] = collections.defaultdict(_no_match)
        # A sampler of several processes repeats images to give each as many.
        self.per_image = list(dict(results).items())
        for _, rows in self.per_image:
            for label, row in rows.items():
                total[label] += row
        names, things = self.dataset_meta["classes"], self.dataset_meta["thing_classes"]
        rates = np.array([_rates(*total[label]) for label in range(len(names))])
        thing = np.array([name in things for name in names])
        self.per_class = {
            name: dict(zip(("PQ", "SQ", "RQ"), row.tolist(), strict=True))
            for name, row in zip(names, rates, strict=True)
        }
        numbers: dict[str, float] = {}
        for group, members in zip(GROUPS, (thing | ~thing, thing, ~thing), strict=True):
            seen = rates[members & ~np.isnan(rates[:, 0])]
            if len(seen):
                names_of = (name + group for name in ("PQ", "SQ", "RQ"))
                numbers |= dict(zip(names_of, seen.mean(0).tolist(), strict=True))
        return numbers


def _no_match() -> np.ndarray:
    return np.zeros(4)


def _rates(iou: float, hits: float, false: float, missed: float) -> tuple[float, float, float]:
    """PQ, SQ and RQ of a class in percent; nan where neither side has a segment of it."""
    if not hits + false + missed:
        return np.nan, np.nan, np.nan
    quality = iou / hits if hits else 0.0
    recognition = hits / (hits + false / 2 + missed / 2)
    return 100 * quality * recognition, 100 * quality, 100 * recognition


def compare(
    truth: np.ndarray, segments: Sequence[Mapping[str, Any]], found: np.ndarray, nothing: int
) -> dict[int, np.ndarray]:
    """Compare one image: label -> (sum of IoU, hits, false segments, missed segments).

    Segments of one label match when their IoU is above 1/2; void pixels of the truth are no part
    of the union. Crowds match nothing. A false segment is forgiven if more than half of it lies
    on void and on crowds of its label. Void are also the segments without label.

    Args:
        truth: (h, w) segment ids, 0 for void.
        segments: id, label (None for a class not asked for) and iscrowd of each id.
        found: (h, w) of label + 1000 * instance, or `nothing`.
    """
    label_of = {s["id"]: s["label"] for s in segments if s["label"] is not None}
    crowds = {s["id"] for s in segments if s["iscrowd"]}
    ids, place = np.unique(truth, return_inverse=True)
    judged = np.array([i if i in label_of else VOID for i in ids.tolist()], np.int64)[place]
    both = judged.ravel() << 32 | found.ravel()
    pairs, counts = np.unique(both, return_counts=True)
    ends = (pairs >> 32).tolist(), (pairs & 0xFFFFFFFF).tolist()
    shared = dict(zip(zip(*ends, strict=True), counts.tolist(), strict=True))
    true_area: collections.Counter = collections.Counter()
    area: collections.Counter = collections.Counter()
    for (true, other), count in shared.items():
        true_area[true] += count
        area[other] += count
    del area[nothing]

    rows: collections.defaultdict[int, np.ndarray] = collections.defaultdict(_no_match)
    matched = set()
    for (true, other), count in shared.items():
        same = true in label_of and other in area and label_of[true] == other % INSTANCE_OFFSET
        if not same or true in crowds:
            continue
        union = true_area[true] + area[other] - count - shared.get((VOID, other), 0)
        if 2 * count > union:
            rows[label_of[true]] += (count / union, 1, 0, 0)
            matched |= {("true", true), ("found", other)}
    for true, label in label_of.items():
        if true not in crowds and ("true", true) not in matched:
            rows[label] += (0, 0, 0, 1)
    for other, pixels in area.items():
        if ("found", other) in matched:
            continue
        label = other % INSTANCE_OFFSET
        forgiving = [VOID, *(crowd for crowd in crowds if label_of.get(crowd) == label)]
        if 2 * sum(shared.get((true, other), 0) for true in forgiving) <= pixels:
            rows[label] += (0, 0, 1, 0)
    return dict(rows)
