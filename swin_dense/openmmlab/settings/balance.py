"""Have rare classes count for more: weights of the pixels' loss, images that come more often."""

import collections
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS

from swin_dense.datasets import label_maps
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings.sections import datasets_of, walk
from swin_dense.registry import DATASETS
from swin_dense.task import Task

KINDS = ("median", "inverse")
SHOWN = 5  # of the rarest classes


def weigh_classes(config: Config, kind: str) -> list[str]:
    """Write a weight for each class into the losses of the pixels, from counts of the label maps.

    "median" is median frequency balancing (arXiv 1411.4734): the frequency of a class among the
    pixels of the images that show it; its weight is the median of all frequencies over its own.
    "inverse" is one over the share of all pixels, with a mean of one over the classes.

    Returns:
        a line with the weights.

    Raises:
        InputError: the task is another one, or no loss of the model weighs pixels by class.
    """
    if Task.of(config) is not Task.SEMANTIC:
        raise InputError(
            "`class_weights` are for label maps, where the loss counts pixels. For objects, let "
            "images with rare classes come more often: `repeat_factor` 0.001."
        )
    losses = _losses_of_pixels(config)
    (dataset,) = datasets_of(config, ("train",))
    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=False))
    paths = [built.get_data_info(i)["seg_map_path"] for i in range(len(built))]
    names = tuple(built.metainfo["classes"])
    weights = class_weights(_pixels(paths, built.label_table), kind)
    for loss in losses:
        loss["class_weight"] = [round(float(w), 4) for w in weights]
    listing = ", ".join(f"{n} {w:.3g}" for n, w in zip(names, weights, strict=True))
    return [f"class weights ({kind} frequency, {len(paths)} label maps): {listing}"]


def class_weights(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Return the weight of each class; 1 for one without a pixel.

    Args:
        pixels: (images, classes) counts.
        kind: of KINDS.
    """
    pixels = pixels.astype(np.float64)
    totals = pixels.sum(0)
    seen = totals > 0
    weights = np.ones(len(totals))
    if kind == "inverse":
        weights[seen] = totals.sum() / totals[seen]
        weights[seen] /= weights[seen].mean()
    else:
        in_images = ((pixels > 0) * pixels.sum(1, keepdims=True)).sum(0)
        frequency = totals[seen] / in_images[seen]
        weights[seen] = np.median(frequency) / frequency
    return weights


def _losses_of_pixels(config: Config) -> list[Any]:
    """Return the losses of the heads that give each pixel a class, those that take weights."""
    found, heads = [], []
    for node in walk(config["model"]):
        if "loss_decode" in node and "num_classes" in node:
            heads.append(node)
    for head in heads:
        losses = head["loss_decode"]
        for loss in losses if isinstance(losses, list | tuple) else [losses]:
            kind = MODELS.get(loss["type"]) or MODELS.get(f"mmseg.{loss['type']}")
            if kind is None or "class_weight" not in inspect.signature(kind).parameters:
                continue
            if loss.get("class_weight") is not None:
                raise InputError(
                    "`class_weights`: the config states class_weight in loss_decode already. Take "
                    "it out there, or leave the option out."
                )
            found.append(loss)
    if not found:
        head = config["model"].get("decode_head") or {}
        raise InputError(
            f"`class_weights`: no loss of {head.get('type', config['model']['type'])} weighs the "
            "pixels by class; it needs a loss_decode with class_weight, as CrossEntropyLoss has "
            "it. Use a config with UPerHead, or leave the option out."
        )
    return found


def _pixels(paths: Sequence[str], table: label_maps.LabelTable) -> np.ndarray:
    """Count the pixels of each class in each label map: (maps, classes); ignored ones in none."""
    counts = np.zeros((len(paths), len(table.classes)), np.int64)
    for i, path in enumerate(paths):
        index = table.lookup(label_maps.read_label_map(path), path)
        counts[i] = np.bincount(index.ravel(), minlength=256)[: len(table.classes)]
    return counts


def repeat_images(config: Config, threshold: float) -> list[str]:
    """Have images with rare classes come several times in an epoch (LVIS, arXiv 1908.03195).

    The data set is wrapped in mmengine's ClassBalancedDataset, which rounds an image's factor up.

    Returns:
        a line with the images in an epoch and the factors of the rarest classes.

    Raises:
        InputError: the data are label maps, or wrapped so already.
    """
    if Task.of(config) is Task.SEMANTIC:
        raise InputError(
            "`repeat_factor` counts the images that show an object of a class. For label maps, "
            "weigh the classes' pixels: `class_weights` median."
        )
    node = config.train_dataloader
    while "dataset" in node.dataset:
        node = node.dataset
        if str(node.get("type")).endswith("ClassBalancedDataset"):
            raise InputError(
                "`repeat_factor`: the config's training data is a ClassBalancedDataset already. "
                "Change its oversample_thr, or leave the option out."
            )
    built = DATASETS.build(dict(node.dataset, pipeline=[], lazy_init=False))
    names = built.metainfo["classes"]
    shown = [set(built.get_cat_ids(i)) for i in range(len(built))]
    by_class, by_image = repeat_factors(shown, threshold)
    node["dataset"] = dict(
        type="ClassBalancedDataset", oversample_thr=threshold, dataset=node.dataset
    )
    epoch = sum(math.ceil(factor) for factor in by_image)
    counts = collections.Counter(label for labels in shown for label in labels)
    rare = sorted((c for c in by_class if by_class[c] > 1), key=lambda c: -by_class[c])
    if not rare:
        return [
            f"repeat factor {threshold:g}: every class is in at least that share of the "
            f"{len(shown)} images, none is repeated"
        ]
    listing = ", ".join(
        f"{names[c]} {by_class[c]:.2f} (in {counts[c]} images)" for c in rare[:SHOWN]
    )
    more = f" and {len(rare) - SHOWN} more classes" if len(rare) > SHOWN else ""
    return [
        f"repeat factor {threshold:g}: {len(shown)} images come as {epoch} in an epoch, each "
        f"factor rounded up; {listing}{more}"
    ]


def repeat_factors(
    shown: Sequence[Iterable[int]], threshold: float
) -> tuple[Mapping[int, float], list[float]]:
    """Return the factors of the classes, max(1, sqrt(threshold / share of the images)), and images.

    An image has the largest factor of its classes, 1 without any.

    Args:
        shown: of each image, its classes.
    """
    counts = collections.Counter(label for labels in shown for label in set(labels))
    by_class = {
        c: max(1.0, math.sqrt(threshold / (count / len(shown)))) for c, count in counts.items()
    }
    return by_class, [max((by_class[c] for c in set(labels)), default=1.0) for labels in shown]
