"""Heads take the maps a backbone announces: their in_channels need not be written down.

A config leaves `in_channels` open; here it is filled in from the maps that the part before passes
on. What a config states itself must agree, as far as those maps are known.
"""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, Registry
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense.errors import InputError

HEADS = ("panoptic_head", "decode_head", "auxiliary_head")  # take the maps of a neck, if any
EXAMPLES = {  # of a type for each part
    "backbone": "swin_dense.Swin",
    "neck": "FPN",
    "panoptic_head": "MaskFormerHead",
    "decode_head": "UPerHead",
    "auxiliary_head": "FCNHead",
}
STRIDES = ("featmap_strides", "strides", "point_strides")
PROBE = 128  # side of the image, in pixels, that shows what is not announced
Part = tuple[str, dict[str, Any]]  # its place in the model, and what the config says of it


class Maps(NamedTuple):
    """What a backbone or a neck passes on, finest or coarsest first; None is what is not known."""

    channels: list[int] | None
    strides: list[int] | None
    why: str = ""  # the channels are not known


def fill(config: Config) -> None:
    """Write the open `in_channels` of the neck, or of the heads, into the config.

    Raises:
        InputError: stated channels or strides are not those of the maps, nothing tells what the
            open ones are, or a part has no type.
    """
    model = config.model
    backbone = model.get("backbone")
    if backbone is None:
        return
    necks = list(parts(model, "neck"))
    heads = [head for name in HEADS for head in parts(model, name)]
    _require_types([("backbone", backbone), *necks, *heads])
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        first = maps = announced(registry, backbone)
        for place, neck in necks:
            faults = _settle(registry, [(place, neck)], maps)
            maps = _behind(registry, neck, maps)
            if faults and maps.strides is None:  # else it was shown those maps, and takes them
                raise InputError(faults[0])
        for fault in _settle(registry, heads, maps):
            raise InputError(fault)
    _require_strides(model, first, maps)


def parts(model: dict[str, Any], name: str) -> Iterator[Part]:
    """Of a neck or head that is one part or a list of them: each, with its place in the config."""
    found = model.get(name)
    if isinstance(found, list):
        yield from ((f"{name}.{i}", part) for i, part in enumerate(found))
    elif found:
        yield name, found


def _require_types(found: Sequence[Part]) -> None:
    for place, part in found:
        if not (isinstance(part, dict) and "type" in part):
            name = place.partition(".")[0]
            raise InputError(
                f"config: model.{place} says what to build by its type, this does not: {part!r}. "
                f'Fill it in, as in model = dict({name}=dict(type="{EXAMPLES[name]}")).'
            )


def announced(registry: Registry, backbone: dict[str, Any]) -> Maps:
    """The maps a backbone returns.

    It announces them as `out_channels` and `out_strides`; any other one is shown an image.
    """
    bare = copy.deepcopy(backbone)  # some take a part out of what they are built from
    bare.pop("init_cfg", None)
    own = _sides(bare.get("img_size", _default(registry.get(bare["type"]), "img_size")))
    with torch.random.fork_rng(devices=[]), build_device(registry, backbone):
        module = registry.build(bare)
        channels = _whole_numbers(module, "out_channels")
        if channels:
            return Maps(channels, _whole_numbers(module, "out_strides"))
        # Its own size may be large: shapes alone are computed, which takes longer for small ones.
        with _without_data() if own else contextlib.nullcontext():
            image = torch.zeros(2, bare.get("in_channels", 3), *(own or (PROBE, PROBE)))
            return _shown(revert_sync_batchnorm(module), image, image.shape[-1], (True, False))


def build_device(registry: Registry, backbone: dict[str, Any]) -> torch.device:
    """Where to build a model that is only looked at: without data if the backbone announces itself.

    Others, written for the processor, may compute in their constructor.
    """
    announces = hasattr(registry.get(backbone["type"]), "out_channels")
    return torch.device("meta" if announces else "cpu")


def _whole_numbers(module: nn.Module, name: str) -> list[int] | None:
    """What a module announces by that name; some mean another thing by it, such as one number."""
    value = getattr(module, name, None)
    told = isinstance(value, list | tuple) and all(isinstance(x, int) for x in value)
    return list(value) if told and value else None


def _sides(size: Any) -> tuple[int, int] | None:
    sides = size if isinstance(size, list | tuple) else [size]
    return (sides[0], sides[-1]) if sides and all(isinstance(x, int) for x in sides) else None


def _without_data() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def _shown(module: nn.Module, given: Any, width: int, modes: Sequence[bool]) -> Maps:
    """What a module makes of an image of that width, or of its maps, in training and otherwise."""
    name = type(module).__name__
    try:
        shapes, *others = (_shapes(module, given, training) for training in modes)
    except Exception as error:  # whatever the code of others raises
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        return Maps(None, None, f"when it was tried, {name} returned no maps ({what})")
    if any(other != shapes for other in others):
        return Maps(None, None, f"{name} returns other maps in training than in evaluation")
    strides = [max(round(width / shape[-1]), 1) for shape in shapes]
    return Maps([shape[0] for shape in shapes], strides)


def _shapes(module: nn.Module, given: Any, training: bool) -> list[torch.Size]:
    """(C, H, W) of each map that a module returns."""
    module.train(training)  # mmdet's return None here
    with torch.no_grad():
        returned = module(given)
    maps = [returned] if isinstance(returned, Tensor) else list(returned)
    if not (maps and all(isinstance(m, Tensor) and m.dim() == 4 for m in maps)):
        raise TypeError("what it returns is something else, or holds something else")
    return [m.shape[1:] for m in maps]


def _behind(registry: Registry, neck: dict[str, Any], maps: Maps) -> Maps:
    """The maps a neck passes on: those it returns when shown its own, else those it announces."""
    with torch.random.fork_rng(devices=[]):
        module = registry.build(copy.deepcopy(neck))
    shown = Maps(None, None, f"{type(module).__name__} does not announce its out_channels")
    if maps.channels and maps.strides:
        width = 64 * max(maps.strides)  # so that the coarsest can be halved some times
        with _without_data():
            sides = [width // stride for stride in maps.strides]
            given = [torch.zeros(1, c, s, s) for c, s in zip(maps.channels, sides, strict=True)]
            shown = _shown(module, tuple(given), width, (False,))
    each = getattr(module, "out_channels", None)
    several = isinstance(each, int) and [each] * getattr(module, "num_outs", 0)
    said = several or _whole_numbers(module, "out_channels")
    return Maps(said, None) if said and not shown.channels else shown


def _settle(registry: Registry, takers: Sequence[Part], maps: Maps) -> list[str]:
    """Fill in what is open, and return what is wrong with what is stated."""
    known = [(place, part, registry.get(part["type"])) for place, part in takers]
    if maps.channels is not None:
        faults = (_settled(place, part, maps.channels, kind) for place, part, kind in known)
        return [fault for fault in faults if fault]
    must = inspect.Parameter.empty
    lacking = [
        f"model.{place}.in_channels"
        for place, part, kind in known
        if _is_open(part) and _default(kind, "in_channels") is must
    ]
    if lacking:
        raise InputError(
            f"config: nothing tells how many channels there are: {maps.why}. "
            f"State {', '.join(lacking)}."
        )
    return []


def _is_open(part: dict[str, Any]) -> bool:
    """Whether nothing states in_channels, nor, as in K-Net's heads, a part of its own."""
    inner = (value for value in part.values() if isinstance(value, dict))
    return not any("in_channels" in node for node in (part, *inner))


def _settled(place: str, part: dict[str, Any], channels: list[int], kind: Any) -> str | None:
    """Fill in or check what one part expects: every map, some of them, or one."""
    index = part.get("in_index", _default(kind, "in_index"))
    taken = index if isinstance(index, list | tuple) else [index]
    if index is None:
        wanted: list[int] | int = channels
    elif all(isinstance(i, int) and -len(channels) <= i < len(channels) for i in taken):
        several = [channels[i] for i in taken]
        wanted = several if isinstance(index, list | tuple) else several[0]
    else:
        return (
            f"config: model.{place}.in_index={index!r} counts maps from 0, there are "
            f"{len(channels)}. Take smaller whole numbers, or return more maps (out_indices)."
        )
    if _is_open(part) and _default(kind, "in_channels") is not None:
        part["in_channels"] = wanted
    stated = part.get("in_channels")
    if isinstance(stated, list | tuple):
        stated = list(stated)
        if stated[::-1] == wanted:  # YOLO's necks count from the coarsest map
            return None
    elif index is None:
        return None  # a part of another kind, such as a transformer's own width
    if stated in (None, wanted):
        return None
    return (
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


def _require_strides(model: dict[str, Any], first: Maps, maps: Maps) -> None:
    """Anchors and RoIs are laid out by strides a config states: those of the maps come first.

    Refused is what surely is a mistake. Maps coarser than the backbone's are not compared: SSD and
    YOLACT lay them out by the size of the image. One stride alone is that of any map, into which a
    head has joined all. One stated twice is of maps that a head resizes itself, as SOLO's do.
    """
    coarsest = max(first.strides or [0])
    strides = [stride for stride in maps.strides or () if stride <= coarsest]
    for key, stated in _stated_strides(model):
        alone = len(stated) == 1 and any(_fit(stated[0], stride) for stride in strides)
        pairs = zip(stated, strides, strict=False)
        if not alone and not all(_fit(s, m) for s, m in pairs if stated.count(s) == 1):
            raise InputError(
                f"config: the maps of the heads have strides {strides}, {key} in the config starts "
                f"with {list(stated)[: len(strides)]}. Change patch_size or out_indices of the "
                f"backbone, start_level of the neck, or {key}."
            )


def _fit(stated: float, shown: float) -> bool:
    """Whether the map of the probe is as wide by both, to a pixel: it has whole ones."""
    return stated > 0 and abs(PROBE / stated - PROBE / shown) < 1


def _stated_strides(node: Any) -> Iterator[tuple[str, Sequence[float]]]:
    """Strides of what is laid over the maps; a backbone and a neck may have their own."""
    if isinstance(node, dict):
        for key in STRIDES:
            value = node.get(key)
            if isinstance(value, list | tuple) and all(isinstance(s, int | float) for s in value):
                yield key, value
        node = [part for name, part in node.items() if name not in ("backbone", "neck")]
    for part in node if isinstance(node, list | tuple) else ():
        yield from _stated_strides(part)
