"""Hand what an evaluation found to `swin_dense.report`, in forms that know no mmdet or mmseg."""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_dense.openmmlab.data.metrics import CocoMetric
from swin_dense.report import detections


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
        self._seconds: list[float] = []  # of each batch, in the model and its metrics
        self._images: list[int] = []
        self._start = self._first = 0.0

    def follow(self, runner: Runner) -> None:
        """Have the runner call this, and keep the results that its metrics judge."""
        runner.register_hook(self)
        for place, metric in enumerate(runner.test_evaluator.metrics):
            if isinstance(metric, CocoMetric):
                metric.compute_metrics = self._kept(place, metric.compute_metrics)

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

    def finish(self, runner: Runner) -> None:
        """Gather what the run left, after it."""
        self.speed = self._measured(runner)
        for place, metric in enumerate(runner.test_evaluator.metrics):
            if isinstance(metric, CocoMetric):
                paths = _paths(runner.test_dataloader.dataset)
                self.found.append(_objects(metric, self._results.get(place, []), paths))

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
    dataset = metric._coco_api.dataset
    number = {one["id"]: i for i, one in enumerate(dataset["images"], start=1)}
    names = metric.dataset_meta["classes"]
    category = metric._coco_api.get_cat_ids(cat_names=names)
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
        own = rows
        if kind == "segm":
            own = [{k: v for k, v in row.items() if k != "area"} for row in rows]
        elif rows:
            own = [{k: v for k, v in row.items() if k != "segmentation"} for row in rows]
        one = hotcoco.COCOeval(truth, truth.load_res(own), kind)
        one.params.img_ids = [number[found["img_id"]] for _, found in results]
        one.evaluate()
        one.accumulate()
        judged[kind] = one
    by_number = {number[i]: path for i, path in paths.items()}
    called = {number[one["id"]]: one["file_name"] for one in dataset["images"]}
    return detections.Found(judged, by_number, called)
