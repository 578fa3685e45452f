"""Heads take the maps a backbone announces: their in_channels need not be written down.

A config leaves `in_channels` open; here it is filled in from the backbone's `out_channels`, or from
those of the part before where a neck has several. What a config states itself must agree.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from torch import nn

from swin_dense.errors import InputError

HEADS = ("panoptic_head", "decode_head", "auxiliary_head")  # take the maps of a neck, if any
STRIDES = ("featmap_strides", "strides", "point_strides")
PROBE = 128  # side of the image, in pixels, that shows what is not announced


def fill(config: Config) -> None:
    """Write the open `in_channels` of the neck, or of the heads, into the config.

    Raises:
        InputError: stated channels or strides are not those of the maps.
    """
    model = config.model
    backbone = model.get("backbone")
    if backbone is None:
        return
    if not (isinstance(backbone, dict) and "type" in backbone):
        raise InputError(
            f"config: model.backbone says what to build by its type, this does not: {backbone!r}. "
            'Fill it in, as in model = dict(backbone=dict(type="swin_dense.Swin")).'
        )
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        channels, strides = announced(registry, backbone)
        _require_strides(model, strides)
        heads = [(place, head) for name in HEADS for place, head in parts(model, name)]
        takers = [*parts(model, "neck"), *heads]
        behind = len(takers) - len(heads)
        for i, (place, part) in enumerate(takers):
            _settle(place, part, channels, registry.get(part["type"]))
            if i < behind and i + 1 < len(takers):
                given = _given(registry, part, channels)
                if given is None:  # it does not say what it passes on
                    return
                channels = given


def announced(registry: Registry, backbone: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Channels and strides of the maps a backbone returns.

    It announces them as `out_channels` and `out_strides`; any other one is shown a small image.
    """
    bare = {key: value for key, value in backbone.items() if key != "init_cfg"}
    with torch.random.fork_rng(devices=[]), building_place(registry, backbone):
        module = registry.build(bare)
        if hasattr(module, "out_channels"):
            return list(module.out_channels), list(getattr(module, "out_strides", ()))
        return _shown(module, bare.get("in_channels", 3))


def building_place(registry: Registry, backbone: dict[str, Any]) -> torch.device:
    """Where to build a model that is only looked at: without data if the backbone announces itself.

    Others, written for the processor, may compute in their constructor.
    """
    announces = hasattr(registry.get(backbone["type"]), "out_channels")
    return torch.device("meta" if announces else "cpu")


def _shown(module: nn.Module, colours: int) -> tuple[list[int], list[int]]:
    module.eval()  # mmdet's return None here
    with torch.no_grad():
        maps = module(torch.zeros(1, colours, PROBE, PROBE))
    return [m.shape[1] for m in maps], [PROBE // m.shape[-1] for m in maps]


def parts(model: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of a neck or head that is one part or a list of them: each, with its place in the config."""
    found = model.get(name)
    if isinstance(found, list):
        yield from ((f"{name}.{i}", part) for i, part in enumerate(found))
    elif found:
        yield name, found


def _settle(place: str, part: dict[str, Any], channels: list[int], kind: Any) -> None:
    """Fill in or check what one part expects: every map, some of them, or one."""
    index = part.get("in_index", _default(kind, "in_index"))
    taken = index if isinstance(index, list | tuple) else [index]
    if index is None:
        wanted: list[int] | int = channels
    elif all(isinstance(i, int) and -len(channels) <= i < len(channels) for i in taken):
        several = [channels[i] for i in taken]
        wanted = several if isinstance(index, list | tuple) else several[0]
    else:
        raise InputError(
            f"config: model.{place}.in_index={index!r} counts maps from 0, there are "
            f"{len(channels)}. Take smaller whole numbers, or return more maps (out_indices)."
        )
    inner = any("in_channels" in value for value in part.values() if isinstance(value, dict))
    if not (inner or "in_channels" in part) and _default(kind, "in_channels") is not None:
        part["in_channels"] = wanted
    stated = part.get("in_channels")
    if isinstance(stated, list | tuple):
        stated = list(stated)
        if stated[::-1] == wanted:  # YOLO's necks count from the coarsest map
            return
    elif index is None:
        return  # a part of another kind, such as a transformer's own width
    if stated not in (None, wanted):
        raise InputError(
            f"config: model.{place} is given maps of {wanted} channels, model.{place}.in_channels "
            f"expects {stated}. Leave it out, it follows from the backbone."
        )


def _default(kind: Any, name: str) -> Any:
    """What an argument is by itself in a class or the parents it passes the rest on to.

    None if there is no such argument, inspect.Parameter.empty if it must be given.
    """
    for parent in inspect.getmro(kind) if inspect.isclass(kind) else ():
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters
        if name in parameters:
            return parameters[name].default
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return None


def _given(registry: Registry, part: dict[str, Any], taken: list[int]) -> list[int] | None:
    """Channels of the maps that a neck passes on; one number is that of each of its outputs."""
    with torch.device("meta"):
        module = registry.build(part)
    given = getattr(module, "out_channels", None)
    if isinstance(given, int):
        return [given] * getattr(module, "num_outs", len(taken))
    return None if given is None else list(given)


def _require_strides(model: dict[str, Any], strides: list[int]) -> None:
    """Anchors and RoIs are laid out by strides a config states: those of the maps come first.

    One stride alone is that of any of them, into which a head has joined all.
    """
    for key, stated in _stated_strides(model):
        expected = list(stated)[: len(strides)]
        alone = len(stated) == 1 and stated[0] in strides
        reverse = list(stated) == strides[::-1]  # as YOLO's heads have it
        if strides and not (alone or reverse) and expected != strides[: len(expected)]:
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
