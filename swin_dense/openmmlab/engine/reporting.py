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
from swin_dense.openmmlab.data.metrics import CocoMetric, IoUMetric
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
        self._results: dict[int, list] = {}  # of each metric
        self._rows: dict[str, Any] = {}  # image file -> what its metric counted in it
        self._confusion: np.ndarray | int = 0
        self._worst: list[tuple[float, str, Any]] = []  # a heap, the best of them on top
        self._seconds: list[float] = []  # of each batch, in the model and its metrics
        self._images: list[int] = []
        self._start = self._first = 0.0

    def follow(self, runner: Runner) -> None:
        """Have the runner call this, and keep the results that its metrics judge."""
        runner.register_hook(self)
        for place, metric in enumerate(runner.test_evaluator.metrics):
            if isinstance(metric, CocoMetric):
                kept = self._kept(place, metric.compute_metrics)
                setattr(metric, "compute_metrics", kept)  # noqa: B010  (mypy: a method)

    def _kept(self, place: int, compute: Any) -> Any:
        def computed(results: list) -> Any:
            self._results[place] = list(results)
            return compute(results)

        return computed

    def before_test_epoch(self, runner: Runner) -> None:
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
            if isinstance(metric, IoUMetric | PanopticMetric):
                look = self._look_at_map if isinstance(metric, IoUMetric) else self._look_at_parts
                for sample, row in zip(outputs, metric.results[-len(outputs) :], strict=True):
                    look(sample, row, len(metric.dataset_meta["classes"]))

    def _look_at_map(self, sample: Any, areas: Any, classes: int) -> None:
        """Count which class is taken for which, and keep the map if it is among the worst."""
        truth = sample.gt_sem_seg.data.squeeze().cpu().numpy()
        found = sample.pred_sem_seg.data.squeeze().cpu().numpy()
        judged = (truth >= 0) & (truth < classes)
        both = truth[judged].astype(np.int64) * classes + found[judged]
        square = np.bincount(both, minlength=classes**2).reshape(classes, classes)
        self._confusion = self._confusion + square
        shared, union, given, true = (np.asarray(part).astype(np.int64) for part in areas)
        seen = union > 0
        score = float((shared[seen] / union[seen]).mean()) if seen.any() else 1.0
        self._rows[sample.img_path] = (shared, given, true)
        small = np.uint16 if classes > 250 else np.uint8
        self._keep(score, sample.img_path, (truth.astype(small), found.astype(small)))

    def _look_at_parts(self, sample: Any, row: dict[int, np.ndarray], classes: int) -> None:
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
        for place, metric in enumerate(runner.test_evaluator.metrics):
            if isinstance(metric, CocoMetric):
                paths = _paths(runner.test_dataloader.dataset)
                self.found.append(_objects(metric, self._results.get(place, []), paths))
            elif isinstance(metric, IoUMetric):
                rows, confusion, worst = self._gathered()
                self.found.append(_maps(metric, rows, confusion, worst))
            elif isinstance(metric, PanopticMetric):
                rows, _, worst = self._gathered()
                self.found.append(_segments(metric, rows, worst))

    def _gathered(self) -> tuple[dict[str, Any], Any, list[Any]]:
        """Join what all processes have seen; an image two of them saw counts once."""
        rows: dict[str, Any] = {}
        confusion: Any = 0
        worst: dict[str, Any] = {}
        for one in all_gather_object((self._rows, self._confusion, self._worst)):
            rows |= one[0]
            confusion = confusion + one[1]
            worst |= {entry[1]: entry for entry in one[2]}
        lowest = sorted(worst.values(), key=lambda entry: (-entry[0], entry[1]))[: maps.WORST]
        return rows, confusion, lowest

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


def _objects(metric: CocoMetric, results: Sequence[Any], paths: dict[Any, Path]) -> Any:
    """Judge the results once more by hotcoco, whose evaluation keeps more than numbers."""
    api: Any = metric._coco_api
    dataset = api.dataset
    number = {one["id"]: i for i, one in enumerate(dataset["images"], start=1)}
    names = metric.dataset_meta["classes"]
    category = api.get_cat_ids(cat_names=names)
    wanted = set(category)
    truth = hotcoco.COCO(
        {
            "images": [{**one, "id": number[one["id"]]} for one in dataset["images"]],
            "categories": [c for c in dataset["categories"] if c["id"] in wanted],
            "annotations": [
                {**row, "image_id": number[row["image_id"]]}
                for row in dataset["annotations"]
                if row["category_id"] in wanted
            ],
        }
    )
    rows = []
    for _, found in results:
        boxes = np.asarray(found["bboxes"], float).reshape(-1, 4)
        masks = found.get("masks") or [None] * len(boxes)
        for box, score, label, mask in zip(
            boxes.tolist(), found["scores"], found["labels"], masks, strict=True
        ):
            left, top, right, bottom = box
            row = {
                "image_id": number[found["img_id"]],
                "category_id": category[int(label)],
                "bbox": [left, top, right - left, bottom - top],
                "score": float(score),
            }
            if mask is not None:
                row["segmentation"] = mask
            rows.append(row)
    judged = {}
    for kind in metric.metrics:
        # An object is as large as its mask where masks are judged, else as its box.
        left_out = "bbox" if kind == "segm" else "segmentation"
        own = [{k: v for k, v in row.items() if k != left_out} for row in rows]
        one = hotcoco.COCOeval(truth, truth.load_res(own), kind)
        one.params.img_ids = [number[found["img_id"]] for _, found in results]
        one.evaluate()
        one.accumulate()
        judged[kind] = one
    by_number = {number[i]: path for i, path in paths.items()}
    called = {number[one["id"]]: one["file_name"] for one in dataset["images"]}
    return detections.Found(judged, by_number, called)


def _names(paths: Sequence[str]) -> tuple[str, ...]:
    """Call each image by its path below the folder that holds all of them."""
    top = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return tuple(os.path.relpath(path, top).replace(os.sep, "/") for path in paths)


def _maps(metric: IoUMetric, rows: dict[str, Any], confusion: Any, worst: Sequence[Any]) -> Any:
    paths = sorted(rows)
    shared, found, true = (np.stack([rows[path][i] for path in paths]) for i in range(3))
    classes = tuple(metric.dataset_meta["classes"])
    matched = records.Pixels(classes, _names(paths), shared, found, true)
    called = dict(zip(paths, matched.images, strict=True))
    kept = [maps.WorstMap(called[path], Path(path), *content) for _, path, content in worst]
    return maps.FoundMaps(matched, confusion, kept)


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
