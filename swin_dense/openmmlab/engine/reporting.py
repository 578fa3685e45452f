"""Hand what an evaluation found to `swin_dense.report`, in forms that know no mmdet or mmseg."""

import heapq
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import torch
from mmdet.structures import INSTANCE_OFFSET
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_dense.datasets import coco_panoptic
from swin_dense.evaluation import agreement
from swin_dense.evaluation import detections as judging
from swin_dense.openmmlab.data.coco_metric import CocoMetric
from swin_dense.openmmlab.data.metrics import IoUMetric
from swin_dense.openmmlab.data.panoptic_metric import PanopticMetric
from swin_dense.report import detections, maps, records


class Watch(Hook):
    """Look at an evaluation while it runs: how long it takes, and what it finds.

    Attributes:
        found: what was found, once the run is over.
        speed: how long it took.
    """

    priority = "VERY_LOW"

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.speed: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}  # image file -> what was counted of its segments
        self._worst: list[tuple[float, str, Any]] = []  # a heap, the best of them on top
        self._seconds: list[float] = []  # of each batch, in the model and its metrics
        self._images: list[int] = []
        self._start = self._first = 0.0

    def follow(self, runner: Runner) -> None:
        """Have the runner call this while it runs."""
        runner.register_hook(self)

    def before_test_epoch(self, runner: Runner) -> None:
        for metric in runner.test_evaluator.metrics:
            if isinstance(metric, CocoMetric):
                metric.details = True
        self._start = time.perf_counter()

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 1:  # the first batch pays for what is built once
            self._start = time.perf_counter()
            self._seconds.clear()
            self._images.clear()
        self._first = time.perf_counter()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._seconds.append(time.perf_counter() - self._first)
        self._images.append(len(outputs))
        self._end = time.perf_counter()
        for metric in runner.test_evaluator.metrics:
            classes = len((metric.dataset_meta or {}).get("classes", ()))
            for sample in outputs if isinstance(metric, IoUMetric) else ():
                if not metric.format_only:
                    self._look_at_map(sample, classes, metric.ignore_index)
            if isinstance(metric, PanopticMetric):
                rows = metric.results[-len(outputs) :]
                for sample, (_, row) in zip(outputs, rows, strict=True):
                    self._look_at_parts(sample, row)

    def _look_at_map(self, sample: Any, classes: int, ignored: int) -> None:
        """Keep the map of an image if it is among the worst."""
        truth, found = (
            part.data[0].cpu().numpy() for part in (sample.gt_sem_seg, sample.pred_sem_seg)
        )
        pairs = agreement.confusion(truth, found, classes, ignored)
        shared, union = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
        seen = union > 0
        score = float((shared[seen] / union[seen]).mean()) if seen.any() else 1.0
        small = np.uint16 if classes > 250 else np.uint8
        shown = np.where(truth == ignored, classes, truth)
        self._keep(score, sample.img_path, (shown.astype(small), found.astype(small)))

    def _look_at_parts(self, sample: Any, row: dict[int, np.ndarray]) -> None:
        """Keep the segments of an image if it is among the worst."""
        self._rows[sample.img_path] = row
        rates = [n[0] / (n[1] + n[2] / 2 + n[3] / 2) for n in row.values() if n[1:].sum()]
        found = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy().astype(np.int32)
        score = float(np.mean(rates)) if rates else 1.0
        self._keep(score, sample.img_path, (sample.seg_map_path, sample.segments, found))

    def _keep(self, score: float, path: str, content: Any) -> None:
        heapq.heappush(self._worst, (-score, path, content))
        if len(self._worst) > maps.WORST:
            # The heap's first is the one of the highest score.
            heapq.heappop(self._worst)

    def finish(self, runner: Runner) -> None:
        """Gather what the run left, after it."""
        self.speed = self._measured(runner)
        rows, worst = self._gathered()
        for metric in runner.test_evaluator.metrics:
            if isinstance(metric, CocoMetric) and metric.judged:
                self.found.append(_objects(metric, _paths(runner.test_dataloader.dataset)))
            elif isinstance(metric, IoUMetric) and metric.per_image:
                self.found.append(_maps(metric, worst))
            elif isinstance(metric, PanopticMetric):
                self.found.append(_segments(metric, rows, worst))

    def _gathered(self) -> tuple[dict[str, Any], list[Any]]:
        """Join what all processes have seen; an image two of them saw counts once."""
        rows: dict[str, Any] = {}
        worst: dict[str, Any] = {}
        for one in all_gather_object((self._rows, self._worst)):
            rows |= one[0]
            worst |= {entry[1]: entry for entry in one[1]}
        lowest = sorted(worst.values(), key=lambda entry: (-entry[0], entry[1]))[: maps.WORST]
        return rows, lowest

    def _measured(self, runner: Runner) -> dict[str, Any]:
        images, seconds = sum(self._images), self._end - self._start
        speed = {
            "images": len(runner.test_dataloader.dataset),
            "images_per_second": images / seconds * runner.world_size,
            "seconds_per_image_in_the_model": sum(self._seconds) / images,
            "seconds_per_image_waiting_for_data": (seconds - sum(self._seconds)) / images,
            "processes": runner.world_size,
            "threads": torch.get_num_threads(),
        }
        if torch.cuda.is_available():
            speed["device"] = torch.cuda.get_device_name()
            speed["peak_memory_of_the_GPU_MiB"] = torch.cuda.max_memory_allocated() // 2**20
        else:
            speed["device"] = "CPU"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak //= 1024**2 if sys.platform == "darwin" else 1024
        speed["peak_memory_of_the_process_MiB"] = peak
        return speed


def _paths(dataset: Any) -> dict[Any, Path]:
    """Return the file of each image id."""
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    return {info["img_id"]: Path(info["img_path"]) for info in infos}


def _objects(metric: CocoMetric, paths: dict[Any, Path]) -> detections.Found:
    """Take the evaluations of the metric; one that hotcoco did not do, it does once more."""
    truth = metric.truth
    judged = {}
    for kind, evaluator in metric.judged.items():
        if not isinstance(evaluator, hotcoco.COCOeval):
            if kind == "boundary":  # of which hotcoco knows nothing; its numbers are in the tables
                continue
            given = metric.max_dets, metric.iou_thrs, metric.lvis
            evaluator = judging.judge(truth, metric.detections, kind, "hotcoco", *given).evaluator
        judged[kind] = evaluator
    files = {place + 1: paths[i] for place, i in enumerate(truth.ids) if i in paths}
    called = dict(zip(files, _names([str(path) for path in files.values()]), strict=True))
    names = {place + 1: called.get(place + 1, str(i)) for place, i in enumerate(truth.ids)}
    return detections.Found(judged, files, names, metric.lvis)


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """Call each image by its path below the folder that holds all of them."""
    top = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return tuple(os.path.relpath(path, top).replace(os.sep, "/") for path in paths)


def _maps(metric: IoUMetric, worst: Sequence[Any]) -> maps.FoundMaps:
    rows = sorted(metric.per_image, key=lambda row: row[0])
    paths = [row[0] for row in rows]
    shared, found, true = (np.stack([row[i] for row in rows]) for i in (1, 2, 3))
    classes = tuple(metric.dataset_meta["classes"])
    matched = records.Pixels(classes, _names(paths), shared, found, true)
    called = dict(zip(paths, matched.images, strict=True))
    kept = [maps.WorstMap(called[path], Path(path), *content) for _, path, content in worst]
    return maps.FoundMaps(matched, metric.confusion, kept)


def _segments(metric: PanopticMetric, rows: dict[str, Any], worst: Sequence[Any]) -> Any:
    classes = tuple(metric.dataset_meta["classes"])
    things = metric.dataset_meta["thing_classes"]
    paths = sorted(rows)
    counts = np.zeros((len(paths), len(classes), 4))
    for place, path in enumerate(paths):
        for label, row in rows[path].items():
            counts[place, label] = row
    thing = np.array([name in things for name in classes])
    matched = records.Segments(classes, _names(paths), counts, thing)
    called = dict(zip(paths, matched.images, strict=True))
    kept = [
        maps.WorstSegments(
            called[path],
            Path(path),
            _truth(truth, segments, classes),
            _parts(found, classes),
        )
        for _, path, (truth, segments, found) in worst
    ]
    return maps.FoundSegments(matched, kept)


def _truth(path: str, segments: Sequence[dict], classes: Sequence[str]) -> tuple[Any, Any]:
    """Read the true segments of an image: ids (H, W) and a row of each."""
    ids = coco_panoptic.read_segments(path, [s["id"] for s in segments])
    known = [s for s in segments if s["label"] is not None]
    rows = [{"id": s["id"], "class": classes[s["label"]]} for s in known]
    shown = np.isin(ids, [row["id"] for row in rows])
    return np.where(shown, ids, 0), rows


def _parts(found: np.ndarray, classes: Sequence[str]) -> tuple[Any, Any]:
    """Give the segments found the ids 1, 2, ...; 0 is where nothing was found."""
    values, place = np.unique(found, return_inverse=True)
    labels = values % INSTANCE_OFFSET
    real = labels < len(classes)
    ids = np.where(real, np.cumsum(real), 0)
    rows = [
        {"id": int(i), "class": classes[label]}
        for i, label in zip(ids.tolist(), labels.tolist(), strict=True)
        if i
    ]
    return ids[place].reshape(found.shape), rows
