"""Heads take the maps a backbone announces: their in_channels need not be written down.

A config leaves `in_channels` open; here it is filled in from the backbone's `out_channels`, or from
those of the part before where a neck has several. What a config states itself must agree.
"""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from torch import nn

from swin_dense.errors import InputError

HEADS = ("panoptic_head", "decode_head", "auxiliary_head")  # take the maps where no neck does
STRIDES = ("featmap_strides", "strides", "point_strides")
PROBE = 128  # side of the image, in pixels, that shows what is not announced


def fill(config: Config) -> None:
    """Write the open `in_channels` of the neck, or of the heads, into the config.

    Raises:
        InputError: stated channels or strides are not those of the maps.
    """
    model = config.model
    if not model.get("backbone"):
        return
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        channels, strides = announced(registry, model.backbone)
        _require_strides(model, strides)
        neck = list(parts(model, "neck"))
        for place, part in neck:
            _settle(place, part, channels)
            if part is not neck[-1][1]:
                channels = _given(registry, part, channels)
    for name in () if neck else HEADS:
        for place, head in parts(model, name):
            _settle(place, head, channels)


def announced(registry: Registry, backbone: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps a backbone returns.

    It announces them as `out_channels` and `out_strides`; any other one is shown a small image.
    """
    bare = {key: value for key, value in backbone.items() if key != "init_cfg"}
    with torch.random.fork_rng(devices=[]), building_place(registry, backbone):
        module = registry.build(bare)
        if hasattr(module, "out_channels"):
            return list(module.out_channels), list(getattr(module, "out_strides", ()))
        return _shown(module)


def building_place(registry: Registry, backbone: dict[str, Any]) -> torch.device:
    """Where to build a model that is only looked at: without data if the backbone announces itself.

    Others, written for the processor, may compute in their constructor.
    """
    announces = hasattr(registry.get(backbone["type"]), "out_channels")
    return torch.device("meta" if announces else "cpu")


def _shown(module: nn.Module) -> tuple[list[int], list[int]]:
    module.eval()  # mmdet's return None here
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, PROBE, PROBE))
    return [m.shape[1] for m in maps], [PROBE // m.shape[-1] for m in maps]


def parts(model: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of a neck or head that is one part or a list of them: each, with its place in the config."""
    found = model.get(name)
    if isinstance(found, list):
        yield from ((f"{name}.{i}", part) for i, part in enumerate(found))
    elif found:
        yield name, found


def _settle(place: str, part: dict[str, Any], channels: list[int]) -> None:
    """Fill in or check what one part expects: every map, some of them, or one."""
    index = part.get("in_index")
    if index is None:
        wanted: list[int] | int = channels
    else:
        taken = index if isinstance(index, list | tuple) else [index]
        if not all(-len(channels) <= i < len(channels) for i in taken):
            raise InputError(
                f"config: model.{place}.in_index={index} counts maps from 0, the backbone returns "
                f"{len(channels)}. Take a smaller index or return more maps (out_indices)."
            )
        several = [channels[i] for i in taken]
        wanted = several if isinstance(index, list | tuple) else several[0]
    stated = part.setdefault("in_channels", wanted)
    if isinstance(stated, list | tuple):
        stated = list(stated)
    elif index is None:
        return  # a part of another kind, such as a transformer's own width
    if stated != wanted:
        raise InputError(
            f"config: model.{place} is given maps of {wanted} channels, model.{place}.in_channels "
            f"expects {stated}. Leave it out, it follows from the backbone."
        )


def _given(registry: Registry, part: dict[str, Any], taken: list[int]) -> list[int]:
    """Channels of the maps that a part of a neck passes on; one number is that of each map."""
    with torch.device("meta"):
        module = registry.build(part)
    given = getattr(module, "out_channels", taken)
    return list(given) if isinstance(given, list | tuple) else [given] * len(taken)


def _require_strides(model: dict[str, Any], strides: list[int]) -> None:
    """Anchors and RoIs are laid out by strides a config states: those of the maps come first.

    One stride alone is that of any of them, into which a head has joined all.
    """
    for key, stated in _stated_strides(model):
        expected = list(stated)[: len(strides)]
        alone = len(stated) == 1 and stated[0] in strides
        if strides and not alone and expected != strides[: len(expected)]:
            raise InputError(
                f"config: the backbone's maps have strides {strides}, {key} in the config starts "
                f"with {expected}. Change patch_size or out_indices of the backbone, or {key}."
            )


def _stated_strides(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from ((key, node[key]) for key in STRIDES if isinstance(node.get(key), list | tuple))
        node = [part for name, part in node.items() if name != "backbone"]
    for part in node if isinstance(node, list | tuple) else ():
        yield from _stated_strides(part)
