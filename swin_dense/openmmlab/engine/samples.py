"""Draw samples of a config's data as the model gets them: after every step of the pipeline."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import readers
from swin_dense.openmmlab.settings.sections import LOADERS
from swin_dense.registry import DATASETS
from swin_dense.report.samples import Sample
from swin_dense.task import Task

TRIES = 20  # images in a row that a pipeline may refuse
SHORT = 60  # letters of an argument's value


def draw_samples(config: Config, split: str, count: int, seed: int) -> Iterator[Sample]:
    """Yield samples of a split, each of another image, the same for the same seed.

    Args:
        config: complete: `places.complete_data` was asked for the split.

    Raises:
        InputError: the split has no image, or the pipeline refuses one after the other.
    """
    loader = readers.with_ours(config[LOADERS[split]])
    with DATASETS.switch_scope_and_registry(config.default_scope) as registry:
        dataset = registry.build(_with_labels(loader["dataset"], Task.of(config)))
    if not len(dataset):
        raise InputError(f"{split}: no image is left to take samples from.")
    order = list(range(len(dataset)))
    random.Random(seed).shuffle(order)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    refused = 0
    inner, outer = _pipelines(dataset)
    for index in order:
        if count <= 0:
            return
        steps: list[str] = []
        try:
            packed = _through(dataset, inner, outer, index, steps)
        except _Refused:
            refused += 1
            if refused >= TRIES:
                raise InputError(
                    f"{split}: the pipeline refused {refused} images in a row, the last at "
                    f"{steps[-1] if steps else 'its first step'}. Look at its steps."
                ) from None
            continue
        refused, count = 0, count - 1
        yield _sample(packed, tuple(dataset.metainfo["classes"]), config, steps)


def _with_labels(dataset: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Have a validation pipeline load the labels, too: there the metric alone reads them."""
    if "dataset" in dataset:
        return {**dataset, "dataset": _with_labels(dataset["dataset"], task)}
    steps = list(dataset["pipeline"])
    loads = [i for i, s in enumerate(steps) if "LoadImage" in str(s.get("type"))]
    if task is Task.SEMANTIC or len(loads) != 1 or any(
        str(s.get("type")).rpartition(".")[2] in ("LoadAnnotations", "LoadSegments") for s in steps
    ):  # fmt: skip
        return dict(dataset)
    reading: dict[str, Any] = {"type": "swin_dense.LoadSegments"}
    if task is not Task.PANOPTIC:
        with_mask = task is Task.INSTANCES
        reading = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": with_mask}
    place = loads[0] + 1
    return {**dataset, "pipeline": [*steps[:place], reading, *steps[place:]]}


class _Refused(Exception):
    """A step gave nothing: mmdet's and mmseg's sets take another image then."""


def _pipelines(dataset: Any) -> tuple[Any, list[Any]]:
    """Return the innermost data set, and the steps of wrappers around it that have some."""
    outer: list[Any] = []
    while hasattr(dataset, "dataset"):
        if getattr(dataset, "pipeline", None):
            outer.append(dataset)
        dataset = dataset.dataset
    return dataset, outer


def _through(dataset: Any, inner: Any, outer: list[Any], index: int, steps: list[str]) -> Any:
    """Take one image through the pipeline, step by step where no other image is mixed in."""
    if outer:  # a wrapper mixes several images: its steps ask for others by themselves
        steps.append(f"{type(dataset).__name__} mixes several images")
        result = dataset[index]
        if result is None:
            raise _Refused
        return result
    while hasattr(dataset, "dataset"):  # repeated, in an order of its own
        index = dataset._get_ori_dataset_idx(index)
        dataset = dataset.dataset
    result = inner.get_data_info(index)
    for step in inner.pipeline.transforms:
        before = dict(result)
        result = step(result)
        steps.append(_told(step, before, result))
        if result is None:
            raise _Refused
    return result


def _told(step: Any, before: Mapping[str, Any], after: Mapping[str, Any] | None) -> str:
    """Say in a line what a step did to an image."""
    name = type(step).__name__
    if after is None:
        return f"{name}: refuses the image"
    said = []
    if "inputs" in after:
        return f"{name}: {_size(after['inputs'].shape[-2:])}, ready for the model"
    for key, word in (("img", "image"), ("gt_seg_map", "label map")):
        old, new = before.get(key), after.get(key)
        if new is None:
            continue
        if old is None:
            said.append(f"{word} of {_size(new.shape[:2])}")
        elif old.shape[:2] != new.shape[:2]:
            said.append(f"{word} {_size(old.shape[:2])} -> {_size(new.shape[:2])}")
        elif key == "img" and old is not new and not np.array_equal(old, new):
            said.append("pixels changed")
    if after.get("flip") and not before.get("flip"):
        said.append(f"flipped, {after.get('flip_direction')}")
    old_boxes, new_boxes = before.get("gt_bboxes"), after.get("gt_bboxes")
    if new_boxes is not None and (old_boxes is None or len(old_boxes) != len(new_boxes)):
        change = f"{len(old_boxes)} -> " if old_boxes is not None else ""
        said.append(f"{change}{len(new_boxes)} objects")
    return f"{name}: {', '.join(said) or 'no change'}"


def _size(shape: Any) -> str:
    return f"{int(shape[1])}x{int(shape[0])}"


def _sample(
    packed: Mapping[str, Any], classes: tuple[str, ...], config: Config, steps: list[str]
) -> Sample:
    """Turn what a pipeline packed into a sample to draw."""
    data = packed["data_samples"]
    rgb = _picture(packed["inputs"], config)
    sample = Sample(rgb, classes, source=str(data.metainfo.get("img_path", "")), steps=steps)
    if "gt_instances" in data and "bboxes" in data.gt_instances:
        found = data.gt_instances
        sample.boxes, sample.labels = _boxes(found), found.labels.numpy()
        sample.masks = _masks(found)
        ignored = data.get("ignored_instances")
        if ignored is not None and "bboxes" in ignored:
            sample.ignored_boxes, sample.ignored_masks = _boxes(ignored), _masks(ignored)
    if "gt_sem_seg" in data:
        field = data.gt_sem_seg
        value = field.sem_seg if "sem_seg" in field else field.data
        labels = value.squeeze(0).numpy().astype(np.int64)
        if labels.shape == rgb.shape[:2]:
            sample.label_map = labels
        else:  # in validation it has the size of the file
            sizes = zip(rgb.shape[:2], labels.shape, strict=True)
            sample.label_map = labels[np.ix_(*(np.arange(n) * m // n for n, m in sizes))]
            steps.append(f"drawn with its label map of {_size(labels.shape)} fitted to the image")
    return sample


def _picture(inputs: torch.Tensor, config: Config) -> np.ndarray:
    """Turn an input (3, H, W) into RGB; a pipeline's own normalising is taken back."""
    image = inputs.float().numpy().transpose(1, 2, 0)
    preparing = config.model.get("data_preprocessor") or {}
    rgb_already = False
    for loader in LOADERS.values():
        for step in _steps((config.get(loader) or {}).get("dataset") or {}):
            if step.get("type") == "Normalize" and inputs.dtype != torch.uint8:
                image = image * np.array(step["std"]) + np.array(step["mean"])
                rgb_already = bool(step.get("to_rgb", True))
                break
    if not rgb_already and preparing.get("bgr_to_rgb", True):
        image = image[..., ::-1]
    return np.ascontiguousarray(image.clip(0, 255).round().astype(np.uint8))


def _steps(dataset: Mapping[str, Any]) -> list[Any]:
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return list(dataset.get("pipeline") or [])


def _boxes(instances: Any) -> np.ndarray:
    boxes = instances.bboxes
    return np.asarray(getattr(boxes, "tensor", boxes), np.float64).reshape(-1, 4)


def _masks(instances: Any) -> np.ndarray | None:
    if "masks" not in instances:
        return None
    masks = instances.masks
    return (masks.to_ndarray() if hasattr(masks, "to_ndarray") else np.asarray(masks)) != 0
