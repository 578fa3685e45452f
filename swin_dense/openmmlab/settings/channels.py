"""Make the channels of necks and heads follow the backbone, and check the strides of the heads.

An `in_channels` left open is filled in from the maps that the part before passes on. One that is
stated and is not that of those maps, because the backbone was changed, is corrected.
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
from swin_dense.openmmlab.settings import building, signatures

HEADS = ("panoptic_head", "decode_head", "auxiliary_head")  # take the maps of a neck, if any
EXAMPLES = {  # of a type for each part
    "backbone": "swin_dense.Swin",
    "neck": "FPN",
    "panoptic_head": "MaskFormerHead",
    "decode_head": "UPerHead",
    "auxiliary_head": "FCNHead",
}
WIDTH = "embed_dim"  # what mmseg's pyramid calls the one width of all maps of a plain ViT
STRIDES = ("featmap_strides", "strides", "point_strides")
PROBE = 128  # side of the image, in pixels, that shows what is not announced
Part = tuple[str, dict[str, Any]]  # its place in the model, and what the config says of it


class Maps(NamedTuple):
    """The maps that a backbone or a neck passes on, in its order; None for what is not known."""

    channels: list[int] | None
    strides: list[int] | None
    why: str = ""  # the channels are not known


def fill(config: Config) -> list[str]:
    """Write the `in_channels` of the necks, or of the heads, into the config.

    Returns:
        a line for each that was stated otherwise, such as "model.neck.in_channels: [256, 512] ->
        [96, 192] (follows the backbone)".

    Raises:
        InputError: nothing tells what an open one is, an in_index does not exist, stated strides
            are not those of the maps, a part has no type, or a backbone does not return what it
            announces.
    """
    model = config.model
    backbone = model.get("backbone")
    if backbone is None:
        return []
    necks = list(parts(model, "neck"))
    heads = [head for name in HEADS for head in parts(model, name)]
    _require_types([("backbone", backbone), *necks, *heads])
    heads = [_taker(place, head) for place, head in heads]
    corrections = []
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        first = maps = announced(registry, backbone)
        for place, neck in necks:
            follows, maps = _feed_neck(registry, place, neck, maps)
            corrections += follows
        corrections += _feed(registry, heads, maps)
    _require_strides(model, first, maps)
    return corrections


def parts(model: dict[str, Any], name: str) -> Iterator[Part]:
    """Yield a neck or head that is one part or a list of them, with its place in the model."""
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
    """Return the maps that a backbone passes on.

    It announces them as `out_channels` and `out_strides`. One that does not is shown an image; so
    is one of others that does, and both must agree.

    Raises:
        InputError: they do not, or it cannot be built.
    """
    bare = copy.deepcopy(backbone)  # some take a part out of what they are built from
    bare.pop("init_cfg", None)
    kind = _kind(registry, bare)
    ours = kind.__module__.startswith("swin_dense.")  # tested to agree
    with torch.random.fork_rng(devices=[]), torch.device("meta" if ours else "cpu"):
        module = building.build(registry, copy.deepcopy(bare), "model.backbone")
        channels = _whole_numbers(module, "out_channels")
        said = Maps(channels, _whole_numbers(module, "out_strides") if channels else None)
        if channels and ours:
            return said
        own = _sides(bare.get("img_size", signatures.default(kind, "img_size")))
        # Its own size may be large: shapes alone are computed, which takes longer for small ones.
        with _without_data() if own else contextlib.nullcontext():
            image = torch.zeros(2, bare.get("in_channels", 3), *(own or (PROBE, PROBE)))
            shown = _shown(revert_sync_batchnorm(module), image, image.shape[-1], (True, False))
    if not channels or not shown.channels:
        return said if channels else shown
    _require_announced(type(module).__name__, said, shown, image)
    return Maps(channels, said.strides or shown.strides)


def _require_announced(name: str, said: Maps, shown: Maps, image: Tensor) -> None:
    """Compare what a backbone announces with what it returns for an image."""
    width = image.shape[-1]
    pairs = zip(said.strides or (), shown.strides or (), strict=False)
    if said.channels == shown.channels and all(_fit(a, b, width) for a, b in pairs):
        return
    raise InputError(
        f"config: model.backbone: {name} announces out_channels {said.channels}"
        f"{f' and out_strides {said.strides}' if said.strides else ''}, but for an image of "
        f"{width}x{image.shape[-2]} it returns maps of {shown.channels} channels and strides "
        f"{shown.strides}. Correct what it announces; heads are built by that."
    )


def build_device(registry: Registry, backbone: dict[str, Any]) -> torch.device:
    """Say where to build a model that is only looked at: without data if the backbone is announced.

    Others, written for the processor, may compute in their constructor.
    """
    announces = hasattr(_kind(registry, backbone), "out_channels")
    return torch.device("meta" if announces else "cpu")


def _kind(registry: Registry, part: dict[str, Any]) -> Any:
    return registry.get(part["type"]) if isinstance(part["type"], str) else part["type"]


def _whole_numbers(module: nn.Module, name: str) -> list[int] | None:
    """Return what a module announces by that name; some mean another thing, such as one number."""
    value = getattr(module, name, None)
    told = isinstance(value, list | tuple) and all(isinstance(x, int) for x in value)
    return list(value) if told and value else None


def _sides(size: Any) -> tuple[int, int] | None:
    sides = size if isinstance(size, list | tuple) else [size]
    return (sides[0], sides[-1]) if sides and all(isinstance(x, int) for x in sides) else None


def _without_data() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def _shown(module: nn.Module, given: Any, width: int, modes: Sequence[bool]) -> Maps:
    """Return what a module makes of an image of that width, or of its maps, in each mode."""
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
    """Return (C, H, W) of each map that a module returns."""
    module.train(training)  # mmdet's return None here
    with torch.no_grad():
        returned = module(given)
    maps = [returned] if isinstance(returned, Tensor) else list(returned)
    if not (maps and all(isinstance(m, Tensor) and m.dim() == 4 for m in maps)):
        raise TypeError("what it returns is something else, or holds something else")
    return [m.shape[1:] for m in maps]


def _behind(registry: Registry, place: str, neck: dict[str, Any], maps: Maps) -> Maps:
    """Return the maps a neck passes on: those it makes of its own, else those it announces."""
    with torch.random.fork_rng(devices=[]):
        module = building.build(registry, copy.deepcopy(neck), f"model.{place}")
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


def _feed_neck(
    registry: Registry, place: str, neck: dict[str, Any], maps: Maps
) -> tuple[list[str], Maps]:
    """Give a neck its channels; return the corrections, and the maps it passes on."""
    stated = neck.get("in_channels")
    corrections = _feed(registry, [(place, neck)], maps)
    wanted = neck.get("in_channels")
    if corrections and isinstance(wanted, list) and isinstance(stated, list | tuple):
        count = len(stated)
        for some in (list(stated), wanted[:count], wanted[-count:]):  # it may choose some maps
            with contextlib.suppress(InputError):
                passed = _behind(registry, place, dict(neck, in_channels=some), maps)
                if passed.strides:
                    neck["in_channels"] = some
                    return _correction(place, stated, some), passed
    return corrections, _behind(registry, place, neck, maps)


def _correction(place: str, stated: Any, wanted: Any, key: str = "in_channels") -> list[str]:
    stated = list(stated) if isinstance(stated, tuple) else stated
    if stated == wanted:
        return []
    return [f"model.{place}.{key}: {stated} -> {wanted} (follows the backbone)"]


def _feed(registry: Registry, takers: Sequence[Part], maps: Maps) -> list[str]:
    """Write the channels of the maps into what takes them; return a line for each correction."""
    known = [(place, part, _kind(registry, part)) for place, part in takers]
    if maps.channels is not None:
        given = maps.channels
        lines = (_write_channels(place, part, given, kind) for place, part, kind in known)
        return [line for some in lines for line in some]
    must = inspect.Parameter.empty
    unknown = [
        f"model.{place}.in_channels"
        for place, part, kind in known
        if _is_open(part) and signatures.default(kind, "in_channels") is must
    ]
    if unknown:
        raise InputError(
            f"config: nothing tells how many channels there are: {maps.why}. "
            f"State {', '.join(unknown)}."
        )
    return []


def _taker(place: str, head: dict[str, Any]) -> Part:
    """Return what takes the maps: a head, or as in K-Net's a head within it."""
    for key, inner in head.items() if "in_channels" not in head else ():
        if isinstance(inner, dict) and inner.keys() >= {"type", "in_channels", "in_index"}:
            return f"{place}.{key}", inner
    return place, head


def _is_open(part: dict[str, Any]) -> bool:
    """Say whether nothing states in_channels, nor, as in K-Net's heads, a part of its own."""
    inner = (value for value in part.values() if isinstance(value, dict))
    return not any("in_channels" in node for node in (part, *inner))


def _write_channels(place: str, part: dict[str, Any], channels: list[int], kind: Any) -> list[str]:
    """Fill in or correct what one part takes: every map, some of them, or one."""
    index = part.get("in_index", signatures.default(kind, "in_index"))
    if index is None and signatures.default(kind, WIDTH) is inspect.Parameter.empty:
        wanted_width = max(channels)
        lines = _correction(place, part[WIDTH], wanted_width, WIDTH) if WIDTH in part else []
        part[WIDTH] = wanted_width
        return lines
    wanted = _chosen(channels, index, place)
    if _is_open(part) and signatures.default(kind, "in_channels") is not None:
        part["in_channels"] = wanted
    stated = part.get("in_channels")
    if isinstance(stated, list | tuple):
        falling = list(stated) == sorted(stated, reverse=True) and len(set(stated)) > 1
        if falling and isinstance(wanted, list):  # YOLO's necks count from the coarsest map
            wanted = sorted(wanted, reverse=True)
    elif index is None:
        return []  # a part of another kind, such as a transformer's own width
    lines = _correction(place, stated, wanted) if stated is not None else []
    if lines:
        part["in_channels"] = wanted
    return lines


def _chosen(channels: list[int], index: Any, place: str) -> list[int] | int:
    """Return the channels of the maps that an in_index chooses; without one, of all."""
    several = isinstance(index, list | tuple)
    taken = list(index) if several else [index]
    if index is None:
        return list(channels)
    if all(isinstance(i, int) and -len(channels) <= i < len(channels) for i in taken):
        chosen = [channels[i] for i in taken]
        return chosen if several else chosen[0]
    raise InputError(
        f"config: model.{place}.in_index={index!r} counts maps from 0, there are "
        f"{len(channels)}. Take smaller whole numbers, or return more maps (out_indices)."
    )


def _require_strides(model: dict[str, Any], first: Maps, maps: Maps) -> None:
    """Check the strides by which anchors and RoIs are laid out: those of the maps come first.

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


def _fit(stated: float, shown: float, width: int = PROBE) -> bool:
    """Say whether both strides give a map of the same width, within one pixel."""
    return stated > 0 and abs(width / stated - width / shown) < 1


def _stated_strides(node: Any) -> Iterator[tuple[str, Sequence[float]]]:
    """Yield the strides of what is laid over the maps; a backbone and a neck have their own."""
    if isinstance(node, dict):
        for key in STRIDES:
            value = node.get(key)
            if isinstance(value, list | tuple) and all(isinstance(s, int | float) for s in value):
                yield key, value
        node = [part for name, part in node.items() if name not in ("backbone", "neck")]
    for part in node if isinstance(node, list | tuple) else ():
        yield from _stated_strides(part)
