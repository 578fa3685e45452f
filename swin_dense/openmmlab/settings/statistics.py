"""Norm images by the statistics of the weights, where the backbone is another project's."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from swin_dense.backbones.adapter import Adapter


def follow(config: Config, say: Callable[[str], object]) -> None:
    """Write the mean and std by which a backbone's weights were trained into the config.

    Such a backbone knows them, see `Adapter.about`; others are left alone. Said is what changes,
    and what else a user should know of the model, its licence first.

    Raises:
        InputError: the package it is from is missing, or has no such model.
    """
    backbone: Any = config.model.get("backbone")
    if not isinstance(backbone, Mapping) or "type" not in backbone:
        return
    kind = backbone["type"]
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        kind = registry.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, Adapter)):
        return
    stated = {key: value for key, value in backbone.items() if key not in ("type", "_scope_")}
    found = kind.about(**stated)
    for line in found.lines:
        say(f"model.backbone: {line}")
    with torch.device("meta"):
        sizes = kind(**copy.deepcopy(stated)).asked.in_words
    if sizes:
        say(f"model.backbone: {backbone['model']}: {sizes}")
    preprocessor: Any = config.model.get("data_preprocessor")
    if not preprocessor or "mean" not in preprocessor:
        return
    for key, values in (("mean", found.mean), ("std", found.std)):
        before = list(preprocessor[key])
        if any(abs(a - b) > 0.01 for a, b in zip(before, values, strict=False)):
            preprocessor[key] = list(values)
            say(f"model.data_preprocessor.{key}: {before} -> {list(values)} (follows the weights)")
