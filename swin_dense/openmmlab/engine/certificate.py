"""A file held against the model it was made of: what both find in the images of a test set.

Each pass takes another batch and another size of image, from the one file. In each, the file has to
reach the numbers of the model, and to find the same objects with the same scores.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine.file_model import of_one_size
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.openmmlab.engine.runner import DenseRunner, repaired
from swin_dense.openmmlab.settings import image_sizes

# What a file may lose of AP or mIoU, and how far scores (0 to 1), boxes (pixels of the image) and
# label maps (share of pixels) may lie from the model's.
LIMITS = {"metric": 0.001, "score": 0.01, "box": 1.0, "pixels": 0.001, "unmatched": 0.01}
PASSES = ((1, 1.0), (2, 0.75), (3, 1.25))  # images at once, factor on the scale of images
SURE = 0.3  # objects of lower scores are not compared one by one
NUMBERS = ("bbox_mAP", "segm_mAP", "mIoU", "PQ")


@dataclass
class Drift:
    """How far what a file finds lies from what its model finds.

    Attributes:
        score: largest difference of the scores of two objects that are the same.
        box: the same of their corners, in pixels.
        pixels: largest share of an image whose class differs.
        unmatched: share of the objects that the other side does not have.
    """

    score: float = 0.0
    box: float = 0.0
    pixels: float = 0.0
    unmatched: float = 0.0
    objects: int = field(default=0, repr=False)
    missed: int = field(default=0, repr=False)

    def add(self, model: Any, file: Any) -> None:
        """Compare two samples of one image."""
        if "pred_sem_seg" in model:
            self._maps(model.pred_sem_seg.data[0], file.pred_sem_seg.data[0])
        elif "pred_panoptic_seg" in model:
            self._maps(*(s.pred_panoptic_seg.sem_seg[0] % 1000 for s in (model, file)))
        else:
            self._objects(model.pred_instances, file.pred_instances)

    def _maps(self, one: torch.Tensor, other: torch.Tensor) -> None:
        share = (one.cpu().long() != other.cpu().long()).float().mean().item()
        self.pixels = max(self.pixels, share)

    def _objects(self, model: Any, file: Any) -> None:
        """Match what is surer than SURE to anything of the other side, both ways."""
        for one, other in ((model, file), (file, model)):
            free = np.ones(len(other.scores), bool)
            for i in np.flatnonzero((one.scores >= SURE).numpy()):
                near = (other.bboxes - one.bboxes[i]).abs().amax(1).numpy()
                alike = free & (other.labels == one.labels[i]).numpy() & (near < 10 * LIMITS["box"])
                self.objects += 1
                if not alike.any():
                    self.missed += 1
                    continue
                scores = (other.scores - one.scores[i]).abs().numpy()
                j = int(np.argmin(np.where(alike, near + scores, np.inf)))
                free[j] = False
                self.score = max(self.score, float(scores[j]))
                self.box = max(self.box, float(near[j]))
        self.unmatched = self.missed / max(self.objects, 1)

    def numbers(self) -> dict[str, float]:
        """Return the four by name."""
        return {name: getattr(self, name) for name in ("score", "box", "pixels", "unmatched")}


def certify(
    model: Predictor,
    file: Predictor,
    config: Config,
    most: int | None = None,
    limits: Mapping[str, float] = LIMITS,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compare a model and its file on the test set of a config.

    Args:
        model: that was written.
        file: what was written, loaded.
        config: complete, with its test data.
        most: images that are looked at; None for all. In AP the objects of the others are missed.
        limits: see LIMITS.
        say: is told what is done.

    Returns:
        the certificate: "passed", and for each pass both sides' metrics and the drift.

    Raises:
        InputError: the data gives none of NUMBERS.
    """
    scale = image_sizes.test_scale(config)
    passes = []
    for batch, factor in PASSES:
        row: dict[str, Any] = {"batch": batch}
        changed = Config(config.to_dict(), format_python_code=False)
        if scale is not None:
            sides = (round(scale[0] * factor), round(scale[1] * factor))
            image_sizes.scale_images(changed, sides)
            row["image_scale"] = list(sides)
        say(f"batch {batch}, images {row.get('image_scale', 'as they come')} ...")
        row |= _pass(model, file, changed, batch, most)
        row["over"] = _over(row, limits)
        passes.append(row)
    return {
        "file": file.weights["file"],
        "weights": model.weights,
        "limits": dict(limits),
        "passes": passes,
        "passed": not any(row["over"] for row in passes),
    }


def refusals(certificate: Mapping[str, Any]) -> list[str]:
    """Return in words what is over its limit."""
    limits = certificate["limits"]
    return [
        f"batch {row['batch']}, images {row.get('image_scale', 'as they come')}: {name} "
        f"{value:.4g}, at most {limits[kind]:g}"
        for row in certificate["passes"]
        for name, (kind, value) in row["over"].items()
    ]


def write(certificate: Mapping[str, Any], path: Path) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(certificate, indent=1) + "\n")


def _over(row: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, tuple[str, float]]:
    lost = {
        name: ("metric", abs(value - row["file"][name])) for name, value in row["model"].items()
    }
    drift = {name: (name, value) for name, value in row["drift"].items()}
    return {name: one for name, one in {**lost, **drift}.items() if one[1] > limits[one[0]]}


def _pass(
    model: Predictor, file: Predictor, config: Config, batch: int, most: int | None
) -> dict[str, Any]:
    """Look at a test set with both sides; each judges what it found by the config's evaluator."""
    config.test_dataloader.update(batch_size=batch, num_workers=0, persistent_workers=False)
    if most is not None:
        config.test_dataloader.dataset["indices"] = most
    sides = {"model": model, "file": file}
    with METRICS.switch_scope_and_registry(config.default_scope):  # of all registries
        loader: Any = DenseRunner.build_dataloader(config.test_dataloader)
        judges = {name: _judge(config, loader.dataset.metainfo) for name in sides}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    drift, count = Drift(), 0
    for data in loader:
        found = {}
        for name, side in sides.items():
            started = time.perf_counter()
            found[name] = _look(side, data)
            seconds[name].append((time.perf_counter() - started) / len(found[name]))
            judges[name].process(data_samples=found[name], data_batch=data)
        count += len(found["model"])
        for one, other in zip(found["model"], found["file"], strict=True):
            drift.add(one, other)
    row: dict[str, Any] = {"images": count, "drift": drift.numbers()}
    for name in sides:
        numbers = {key.rpartition("/")[2]: v for key, v in judges[name].evaluate(count).items()}
        shown = {key: _share(key, numbers[key]) for key in NUMBERS if key in numbers}
        if not shown:
            raise InputError(
                f"test_evaluator: a certificate compares one of {', '.join(NUMBERS)}; this config "
                f"gives {', '.join(numbers)}."
            )
        row[name] = shown
    row["seconds_per_image"] = {name: statistics.median(all_) for name, all_ in seconds.items()}
    return row


def _share(name: str, value: float) -> float:
    return value / 100 if name in ("mIoU", "PQ") and value > 1 else value


def _look(side: Predictor, data: Mapping[str, Any]) -> list[Any]:
    """Return samples of its own: both sides write into those they are given.

    A model extends images of one batch to the largest and may see others' borders; like a file it
    is given those of one size together.
    """
    inputs, samples = data["inputs"], [sample.clone() for sample in data["data_samples"]]
    found: list[Any] = [None] * len(samples)
    for places in of_one_size(inputs, samples):
        some = {"inputs": [inputs[i] for i in places], "data_samples": [samples[i] for i in places]}
        with torch.inference_mode():
            for i, one in zip(places, side.model.test_step(some), strict=True):
                found[i] = one.cpu()
    return found


def _judge(config: Config, meta: Mapping[str, Any]) -> Evaluator:
    parts = config.test_evaluator
    parts = parts if isinstance(parts, list | tuple) else [parts]
    judge = Evaluator([repaired(part) for part in parts])
    judge.dataset_meta = dict(meta)
    return judge
