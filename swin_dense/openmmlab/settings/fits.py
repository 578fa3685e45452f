"""Whether a config fits its data: scales, anchors, queries and norms, held against the objects."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmdet.models.task_modules import AnchorGenerator
from mmengine.config import Config
from mmengine.registry import TASK_UTILS

from swin_dense.datasets.coco_file import CocoFile, open_coco
from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, kind
from swin_dense.datasets.image_names import find
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import location
from swin_dense.openmmlab.settings.image_sizes import IN_TURN, RESIZING
from swin_dense.openmmlab.settings.sections import LOADERS, datasets_of, walk
from swin_dense.task import Task

SCALED_AWAY = kind(
    "image-scaled-away",
    ERROR,
    "An image that is fitted into the config's scale keeps a pixel on each side.",
    "A strip many times as long as it is high has no height left, and the run stops there.",
)
ANCHORS = kind(
    "anchors-do-not-fit",
    INFO,
    "Most objects resemble an anchor in width and height (IoU of 0.3 or more).",
    "Others are learnt from the one anchor that is nearest, and found less surely.",
)
TINY = kind(
    "objects-below-two-pixels",
    WARNING,
    "Objects are more than two pixels wide and high at the scale of the training.",
    "Smaller ones leave no trace in the maps, and count as background.",
)
QUERIES = kind(
    "queries-too-few",
    WARNING,
    "A model of queries has more of them than an image has objects.",
    "Each query finds one object at most; the rest is missed.",
)
DETECTIONS = kind(
    "detections-too-few",
    INFO,
    "A model may return as many detections as an image has objects.",
    "Recall ends at max_per_img, whatever was learnt.",
)
LONE_NORM = kind(
    "batch-norm-of-one-image",
    WARNING,
    "Batch norms that learn see several images.",
    "Statistics of one image are noise; training and testing differ.",
)
CROPS = kind(
    "crop-larger-than-images",
    INFO,
    "Crops lie within the images.",
    "The rest of a crop is padding: a smaller one trains faster and learns the same.",
)
ALIKE = 0.3  # IoU of an object and an anchor
MOST = 0.1  # share of the objects from which a finding is made


def require_pixels(config: Config, splits: tuple[str, ...]) -> None:
    """Refuse images of which the config's scale would leave no pixel.

    Raises:
        InputError: naming the images and the scale.
    """
    for finding in _scaled_away(config, splits):
        raise InputError(f"{finding.file}: {finding.text} [{finding.kind.code}]")


def examine(config: Config, splits: tuple[str, ...]) -> list[Finding]:
    """Hold a complete config against the objects of its training data."""
    found = list(_scaled_away(config, splits))
    found += _norms(config)
    if Task.of(config) in (Task.SEMANTIC, Task.PANOPTIC) or "train" not in splits:
        return found
    coco = _files(config, ("train",))[0][1]
    found += _crops(config, coco)
    judged = ~np.asarray(coco.crowd) & (coco.image >= 0)
    if judged.any():
        found += _objects(config, coco, judged)
    return found


def _files(config: Config, splits: tuple[str, ...]) -> list[tuple[str, CocoFile]]:
    if Task.of(config) in (Task.SEMANTIC, Task.PANOPTIC):
        return []
    return [
        (split, open_coco(location(datasets_of(config, (split,))[0], "ann_file")))
        for split in splits
        if config.get(LOADERS[split])
    ]


def _scaled_away(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    for split, coco in _files(config, splits):
        for scale in _scales(config, split):
            short = np.minimum(coco.heights, coco.widths)
            gone = np.flatnonzero((short * factors(coco, scale) + 0.5).astype(np.int64) < 1)
            if not len(gone):
                continue
            folder = location(datasets_of(config, (split,))[0], "img")
            names = [find(folder, [coco.file_names[i]]).files[0] for i in gone[:20].tolist()]
            first = gone[0]
            yield SCALED_AWAY.found(
                f"{len(gone)} images have less than a pixel on a side when they are fitted into "
                f"{scale[0]}x{scale[1]}: {first_names(names)}; the first is "
                f"{coco.widths[first]}x{coco.heights[first]} (width x height).",
                "Cut them into pieces, leave them out, or state a larger scale (`image_scale`).",
                coco.path,
                names,
            )
            break


def factors(coco: CocoFile, scale: tuple[int, int]) -> np.ndarray:
    """Return by how much each image is scaled to fit into `scale`, its ratio kept: float64 (n,)."""
    long, short = max(scale), min(scale)
    sides = np.stack([coco.heights, coco.widths]).astype(np.float64)
    return np.minimum(long / sides.max(0), short / sides.min(0))


def _scales(config: Config, split: str) -> list[tuple[int, int]]:
    """Return the scales that a split's pipeline may fit images into, keeping their ratio."""
    found: list[tuple[int, int]] = []
    for step in _steps(datasets_of(config, (split,))[0].get("pipeline") or ()):
        name = str(step.get("type")).rpartition(".")[2]
        if name not in RESIZING or not step.get("keep_ratio", name != "Resize"):
            continue
        given = step.get("scales", step.get("scale"))
        for scale in given if isinstance(given, list) else [given]:
            if isinstance(scale, tuple | list) and len(scale) == 2:
                found.append((int(scale[0]), int(scale[1])))
        break
    return found


def _steps(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    for step in pipeline:
        if isinstance(step, list | tuple):
            yield from _steps(step)
        elif isinstance(step, Mapping):
            inner = step.get("transforms")
            if inner and str(step.get("type")).rpartition(".")[2] in (
                *IN_TURN,
                "RandomChoice",
                "RandomApply",
            ):
                yield from _steps(inner)
            else:
                yield step


def _objects(config: Config, coco: CocoFile, judged: np.ndarray) -> Iterator[Finding]:
    scales = _scales(config, "train")
    factor = factors(coco, scales[-1]) if scales else np.ones(len(coco))
    sides = np.asarray(coco.box)[judged, 2:] * factor[coco.image[judged], None]
    small = np.asarray((sides < 2).any(1))
    at = f"at {scales[-1][0]}x{scales[-1][1]}" if scales else "as they are"
    if small.mean() > MOST:
        yield TINY.found(
            f"{small.sum()} of {len(small)} objects ({small.mean():.0%}) are at most two pixels "
            f"wide or high {at}.",
            "Train at a larger scale (`image_scale`), or cut the images into tiles.",
            coco.path,
        )
    if (missed := _unlike(config, sides)) is not None and missed > MOST:
        median = np.median(sides, 0)
        yield ANCHORS.found(
            f"{missed:.0%} of {len(sides)} objects resemble no anchor (IoU below {ALIKE}) {at}; "
            f"in the median they are {median[0]:.0f} wide and {median[1]:.0f} high.",
            "Change scales, ratios or strides of the anchor_generator, or the scale of the images.",
            coco.path,
        )
    most = int(np.bincount(coco.image[judged]).max())
    model = config.model
    queries = [n["num_queries"] for n in walk(model) if isinstance(n.get("num_queries"), int)]
    if queries and min(queries) < most:
        yield QUERIES.found(
            f"num_queries is {min(queries)}, and an image has {most} objects.",
            f"State model.num_queries of at least {most}, with room to spare.",
            coco.path,
        )
    limits = [
        node["max_per_img"]
        for node in walk(model.get("test_cfg") or {})
        if isinstance(node.get("max_per_img"), int) and "nms_pre" not in node
    ]
    if limits and min(limits) < most:
        yield DETECTIONS.found(
            f"max_per_img is {min(limits)}, and an image has {most} objects.",
            f"State max_per_img of at least {most}, and max_dets of the evaluator likewise.",
            coco.path,
        )


def _unlike(config: Config, sides: np.ndarray) -> float | None:
    """Return the share of objects, (m, 2) wide and high, that no anchor resembles; None without."""
    head = config.model.get("rpn_head") or config.model.get("bbox_head")
    node = head.get("anchor_generator") if isinstance(head, Mapping) else None
    generator = TASK_UTILS.build(dict(node, _scope_="mmdet")) if node else None
    if not isinstance(generator, AnchorGenerator):
        return None
    anchors = np.concatenate([a[:, 2:].numpy() - a[:, :2].numpy() for a in generator.base_anchors])
    best = np.zeros(len(sides))
    for width, height in np.unique(anchors.round(3), axis=0).tolist():
        both = np.minimum(sides[:, 0], width) * np.minimum(sides[:, 1], height)
        best = np.maximum(best, both / (sides.prod(1) + width * height - both))
    return float((best < ALIKE).mean())


def _norms(config: Config) -> Iterator[Finding]:
    size = (config.get("train_dataloader") or {}).get("batch_size")
    places = [
        node["norm_cfg"].get("type")
        for node in walk(config.model)
        if isinstance(node.get("norm_cfg"), Mapping)
        and str(node["norm_cfg"].get("type")) in ("BN", "SyncBN")
        and node["norm_cfg"].get("requires_grad", True)
        and not node.get("norm_eval")
    ]
    if size == 1 and places:
        yield LONE_NORM.found(
            f"train_dataloader.batch_size is 1, and {len(places)} parts of the model have batch "
            "norms.",
            "State a larger batch_size, or norm_cfg=dict(type='GN', num_groups=32).",
            config.filename or "",
        )


def _crops(config: Config, coco: CocoFile) -> Iterator[Finding]:
    for step in _steps(datasets_of(config, ("train",))[0].get("pipeline") or ()):
        crop = step.get("crop_size")
        if str(step.get("type")).rpartition(".")[2] != "RandomCrop" or not isinstance(crop, tuple):
            continue
        if step.get("crop_type", "absolute") != "absolute":
            continue
        scales = _scales(config, "train")
        factor = factors(coco, scales[-1]) if scales else np.ones(len(coco))
        across, down = coco.widths * factor, coco.heights * factor
        beyond = np.asarray(across < crop[0]) & np.asarray(down < crop[1])
        if beyond.size and beyond.mean() > 0.5:
            yield CROPS.found(
                f"{beyond.mean():.0%} of the images are smaller than the crop of {crop}.",
                "State a smaller crop_size.",
                coco.path,
            )
