"""Look at images with a trained model: `load` finds it, `Predictor.predict` returns what it saw.

Several threads may predict, with one model or with several: nothing that they share is changed.
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS

from swin_dense.checkpoints.files import Checkpoint
from swin_dense.datasets import images
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import trained, weights
from swin_dense.openmmlab.engine.torch_errors import explained
from swin_dense.openmmlab.settings import building
from swin_dense.openmmlab.settings.classes import set_classes
from swin_dense.report.results import Instances, LabelMap, Segment, Segments
from swin_dense.task import Task

SCORE = 0.3  # below it, objects are left out unless asked for
_LOADING = (
    threading.Lock()
)  # mmengine's scope, in which names are looked up, is one for all threads


def load(
    config: str | Path | Config | None = None,
    weights: str | Path | None = None,
    *,
    device: str | None = None,
    image_scale: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> "Predictor":
    """Load a trained model.

    `load("mask_rcnn_swin_t", "weights.pth")`, `load("work_dirs/run")` or `load("iter_400.pth")`,
    as a checkpoint of ours carries its config.

    Args:
        config: a config's name, path or object; or the folder of a run, for its last checkpoint,
            or a checkpoint, where that is all there is.
        weights: a checkpoint: a path, an address, or the folder of a run.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one.
        image_scale: (longer, shorter side) in pixels that images are fitted into; that of the
            checkpoint, else of the config.
        options: changes of the config, dotted key -> value.

    Raises:
        InputError: there is no such config or checkpoint, they do not fit one another, the
            checkpoint names no classes, or the device cannot be used.
    """
    device = _usable(device)
    with _LOADING:
        found, checkpoint = trained.find(config, weights, options, image_scale)
        return Predictor(found, checkpoint, device)


class Predictor:
    """A trained model, ready to look at images.

    Attributes:
        config: complete; of its own.
        classes: names of what it knows.
        task: what it finds.
        model: mmdet's or mmseg's module, on its device.
        weights: file, sha256 and layout of what was loaded.
    """

    def __init__(self, config: Config, checkpoint: Checkpoint, device: str = "cpu") -> None:
        """Build a model; see `load`.

        Args:
            config: an experiment, which is changed to have the checkpoint's classes; its data
                need not be there.
            checkpoint: weights of the whole model, with the names of its classes.
        """
        names, things = weights.class_names(checkpoint), weights.thing_names(checkpoint)
        if names is None:
            raise InputError(
                f"checkpoint: {checkpoint.source} does not say which classes it knows. Those of "
                "our runs do; others can be evaluated, where the data names the classes."
            )
        set_classes(config, names, things)
        self.config, self.classes, self.task = config, names, Task.of(config)
        self.things = things or ()
        with MODELS.switch_scope_and_registry(config.default_scope) as registry:
            built = building.build(registry, config.model, "model")
            self.model: BaseModel = revert_sync_batchnorm(built)
            with building.refusals("test_dataloader.dataset.pipeline"):
                self._pipeline = Compose(_steps(config))
        advice = "Give the config the checkpoint was trained with."
        ledger = weights.load(self.model, checkpoint, weights.WHOLE, advice)
        self.weights = {"file": ledger.source, "sha256": ledger.sha256, "layout": ledger.layout}
        self.model.to(device).eval()

    def __repr__(self) -> str:
        device = next(self.model.parameters()).device
        return (
            f"<{type(self.model).__name__}: {self.task.value}, {len(self.classes)} classes, "
            f"{self.weights['file']}, on {device}>"
        )

    def predict(self, image: Any, score: float | None = None) -> Instances | LabelMap | Segments:
        """Find what is in an image.

        Args:
            image: a path, a PIL image, or an RGB array: (H, W, 3) uint8.
            score: leave out what is less sure, 0 to 1; 0.3 if None. A label map has no scores.

        Returns:
            objects with boxes, a class for each pixel, or disjoint segments, by the model's task.

        Raises:
            InputError: it is no image, it is too small, or `score` means nothing here.
        """
        rgb = images.as_rgb(image)
        least = self._least(score)
        sample = self._look(rgb)
        if self.task is Task.SEMANTIC:
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            return LabelMap(image=rgb, classes=self.classes, labels=labels)
        if self.task is Task.PANOPTIC:
            return _segments(sample.pred_panoptic_seg, rgb, self.classes, self.things, least)
        return _instances(sample.pred_instances, rgb, self.classes, least)

    def _least(self, score: float | None) -> float:
        if score is None:
            return SCORE
        if self.task is Task.SEMANTIC:
            raise InputError("score: every pixel has a class here, none has a score. Leave it out.")
        if not 0 <= score <= 1:
            raise InputError(f"score: scores are 0 to 1, got {score!r}.")
        return score

    @torch.inference_mode()
    def _look(self, rgb: np.ndarray) -> Any:
        """Return mmdet's or mmseg's data sample of an image."""
        try:
            item = self._pipeline({"img": rgb, "img_id": 0, "img_path": "", "seg_fields": []})
        except cv2.error as error:
            raise InputError(
                f"an image of {rgb.shape[1]}x{rgb.shape[0]} pixels cannot be resized to the "
                "config's scale without a side of 0 pixels."
            ) from error
        batch = {"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}
        with explained():
            return self.model.test_step(batch)[0]


def _steps(config: Config) -> list[Any]:
    """Return the test pipeline without annotations; the image is read before it."""
    loader = config.get("test_dataloader")
    if loader is None:
        raise InputError(
            "config: it has no test_dataloader, whose pipeline says how images reach the model."
        )
    kept: list[Any] = [{"type": "swin_dense.LoadImage"}]
    for step in loader.dataset.pipeline:
        if not step["type"].rpartition(".")[2].startswith("Load"):
            kept.append(step)
    return kept


def _usable(device: str | None) -> str:
    """Return the device that is asked for, if it can be used, or the best there is."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {device} cannot be used here ({str(error).splitlines()[0]}). "
            "Leave it out to take a GPU if there is one."
        ) from error
    return device


def _instances(found: Any, rgb: np.ndarray, classes: tuple[str, ...], least: float) -> Instances:
    """Take over what mmdet found, the surest first."""
    found = found[found.scores >= least].cpu()
    order = np.argsort(-found.scores.numpy(), kind="stable")
    return Instances(
        image=rgb,
        classes=classes,
        boxes=found.bboxes.numpy()[order],
        scores=found.scores.numpy()[order],
        labels=found.labels.numpy()[order],
        masks=found.masks.numpy()[order].astype(bool) if "masks" in found else None,
    )


def _segments(
    found: Any, rgb: np.ndarray, classes: tuple[str, ...], things: Sequence[str], least: float
) -> Segments:
    """Take over mmdet's segments, numbered from 1, the largest first."""
    numbers, place = np.unique(found.sem_seg[0].cpu().numpy(), return_inverse=True)
    areas = np.bincount(place.ravel(), minlength=len(numbers))
    ids = np.zeros(len(numbers), np.int64)
    rows: list[Segment] = []
    for i in np.argsort(-areas, kind="stable"):
        score = found.scores.get(int(numbers[i]))
        if score is None or score < least:
            continue
        label = int(numbers[i] % INSTANCE_OFFSET)
        name, ids[i] = classes[label], len(rows) + 1
        rows.append(Segment(len(rows) + 1, name, label, name in things, score, int(areas[i])))
    shape = found.sem_seg.shape[-2:]
    return Segments(image=rgb, classes=classes, ids=ids[place].reshape(shape), rows=tuple(rows))
