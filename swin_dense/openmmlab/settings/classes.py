"""The classes of a config: names in its data sets, their number in every head of the model."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.errors import InputError
from swin_dense.openmmlab.settings.sections import LOADERS, datasets_of, walk
from swin_dense.task import Task


def set_classes(
    config: Config, names: tuple[str, ...], things: tuple[str, ...] | None = None
) -> None:
    """Give every data set the names, and every head of the model their number.

    Args:
        things: for panoptic data, the names that are things; they come first. None for those the
            data sets have.

    Raises:
        InputError: the data sets know other things, or a loss weighs other classes.
    """
    datasets = datasets_of(config, tuple(LOADERS))
    more = {}
    if Task.of(config) is Task.PANOPTIC:
        for dataset in datasets:
            things = _agreed_things(things, (dataset.get("metainfo") or {}).get("thing_classes"))
        names = tuple(sorted(names, key=lambda name: name not in (things or ())))  # a stable sort
        more = {"thing_classes": things}
    for dataset in datasets:
        dataset["metainfo"] = dict(dataset.get("metainfo") or {}, classes=tuple(names), **more)
    count = len(more["thing_classes"] or ()) if more else len(names)
    apart = semantic_head(config)
    for node in walk(config["model"]):
        if "num_classes" in node and node is not apart:
            node["num_classes"] = len(names)
        if "num_things_classes" in node:
            node.update(num_things_classes=count, num_stuff_classes=len(names) - count)
        if node is not apart and not node.keys().isdisjoint(("num_classes", "num_things_classes")):
            _weigh_classes(node, len(names), Task.of(config) is Task.SEMANTIC)


def semantic_head(config: Config) -> ConfigDict | None:
    """Return the head that learns label maps beside the instances, if the model has one.

    Its num_classes counts the values of those maps, things and stuff, whichever objects are learnt.
    """
    heads = (node.get("semantic_head") for node in walk(config["model"]))
    return next((head for head in heads if head), None)


def _agreed_things(
    trained: tuple[str, ...] | None, known: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return the things in the order of the weights; the data must know them, if it knows any."""
    things = known if trained is None else trained
    if things is None:
        raise InputError(
            "classes: a panoptic model must be told which of its classes are things, and the "
            "checkpoint does not say. Use one that was trained with a panoptic config."
        )
    if known is not None and set(known) != set(things):
        raise InputError(
            f"classes: the weights were trained with the things {list(things)}, those of the data "
            f"are {list(known)}. Correct isthing in the categories of the annotation file."
        )
    return tuple(things)


def _weigh_classes(head: Mapping[str, Any], count: int, segmentation: bool) -> None:
    """Lengthen or shorten the weights of a head's losses: one for each class.

    Where scores compete and not every place shows a class, the last one is for no object.
    """
    for key, losses in head.items():
        for loss in walk(losses) if key.startswith("loss_") else ():
            weights = loss.get("class_weight")
            if not isinstance(weights, list | tuple):
                continue
            competing = not (segmentation or loss.get("use_sigmoid", False))
            none = int("num_queries" in head or competing)
            each, rest = weights[: len(weights) - none], weights[len(weights) - none :]
            if len(each) == count:
                continue
            if len(set(each)) > 1:
                raise InputError(
                    f"config: {key}.class_weight has {len(weights)} numbers, but the data has "
                    f"{count} classes: {count + none} are needed"
                    f"{', the last for no object' if none else ''}. State them anew."
                )
            loss["class_weight"] = [*each[:1] * count, *rest]
