"""Compare what a config states with what its classes take, before anything is built from it.

Each dict with a `type` is looked up as mmengine would, and its other keys are held against the
signature of the class, its parents' too where `**kwargs` passes the rest on. All mistakes of a
config are told in one message.
"""

import ast
import difflib
import functools
import inspect
import re
import textwrap
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine import registry as roots
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from torch import nn

from swin_dense.errors import InputError, nearest


class Section(NamedTuple):
    """A section of a config: where its types are registered, and keys that others read."""

    registries: tuple[Registry, ...]
    extra: frozenset[str] = frozenset()


_DATA = (roots.DATASETS, roots.TRANSFORMS, roots.DATA_SAMPLERS, roots.FUNCTIONS)
_HOOKS = Section((roots.HOOKS, roots.TRANSFORMS), frozenset({"priority"}))
_LOOP = Section((roots.LOOPS,), frozenset({"by_epoch"}))
_MODEL = Section((roots.MODELS, roots.TASK_UTILS), frozenset({"bg_cls_weight"}))  # DETR's
SECTIONS = {
    "model": _MODEL,
    **dict.fromkeys(("train_dataloader", "val_dataloader", "test_dataloader"), Section(_DATA)),
    **dict.fromkeys(("val_evaluator", "test_evaluator"), Section((roots.METRICS, roots.EVALUATOR))),
    **dict.fromkeys(("default_hooks", "custom_hooks"), _HOOKS),
    **dict.fromkeys(("train_cfg", "val_cfg", "test_cfg"), _LOOP),
    "optim_wrapper": Section(
        (roots.OPTIM_WRAPPERS, roots.OPTIMIZERS), frozenset({"constructor", "paramwise_cfg"})
    ),
    "visualizer": Section((roots.VISUALIZERS, roots.VISBACKENDS)),
    "log_processor": Section((roots.LOG_PROCESSORS,)),
    "tta_model": _MODEL,
    "tta_pipeline": Section(_DATA),
    "param_scheduler": Section((roots.PARAM_SCHEDULERS,), frozenset({"convert_to_iter_based"})),
}
# What mmengine takes where the type is left out.
TYPES: dict[tuple[str, ...], str] = {
    ("val_cfg",): "ValLoop",
    ("test_cfg",): "TestLoop",
    ("log_processor",): "LogProcessor",
}
# What builds these completes them or takes some arguments out, or finds them without a registry.
COMPLETED = re.compile(r".*_cfg|cfg|dcn|sac|nms|roi_layer|.*_trans")
LAYERS = ("norm_cfg", "act_cfg", "conv_cfg")  # of these the type is looked up all the same
ELSEWHERE = ("init_cfg", "paramwise_cfg")  # keys of what is no part; read by others
OTHER_LIBRARIES = ("Albu",)  # types whose own parts are not mmengine's
GIVEN = ("in_channels", "num_classes", "train_cfg", "test_cfg")  # to parts, by `channels` or models
LOADER = frozenset(inspect.signature(torch.utils.data.DataLoader).parameters) | {
    "dataset",
    "num_batch_per_epoch",
}
ROWS = (list, tuple, abc.Sequence, abc.Iterable)
ROWS_IN_WORDS = {"list", "tuple", "List", "Tuple", "Sequence", "Iterable"}
# As mmdet, mmpretrain or timm call what ours call otherwise; nearer spellings are found by nearest.
SYNONYMS = {"use_abs_pos_embed": "ape", "use_checkpoint": "with_cp", "in_chans": "in_channels"}


class Signature(NamedTuple):
    """What a class takes: its arguments, those that must be given, whether there are no others."""

    arguments: dict[str, inspect.Parameter]
    required: tuple[str, ...]
    closed: bool


def check(config: Config, more: Sequence[str] = ()) -> None:
    """Find every unknown type, and every argument that no class takes or that one lacks.

    Args:
        more: mistakes that were found otherwise, to be told with them.

    Raises:
        InputError: with all of them, and the nearest name of each.
    """
    found: list[str] = []
    for name, section in SECTIONS.items():
        node = config.get(name)
        if name.endswith("_dataloader") and isinstance(node, Mapping):
            for key in node.keys() - LOADER:
                found.append(
                    f"{name}: a data loader takes no argument {key!r}.{nearest(key, LOADER)}"
                )
        found += _walk(node, (name,), section, config.default_scope)
    found += more
    if found:
        first = f"{len(found)} mistakes:\n  " if len(found) > 1 else ""
        raise InputError(f"config: {first}" + "\n  ".join(found))


def _walk(node: Any, place: tuple[str, ...], section: Section, scope: str) -> Iterator[str]:
    """Yield what is wrong in a node and below it."""
    if isinstance(node, list | tuple):
        for i, part in enumerate(node):
            yield from _walk(part, (*place, str(i)), section, scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get("_scope_", scope)
    if "type" in node or (kind := assumed(node, place)):
        node = node if "type" in node else {**node, "type": kind}
        yield from _wrong(node, place, section, scope)
    elif place == ("model",):
        yield "model says what to build by its type, as in model = dict(type='MaskRCNN', ...)."
    if node.get("type") in OTHER_LIBRARIES:
        return
    for key, part in node.items():
        if key not in ELSEWHERE:
            yield from _walk(part, (*place, str(key)), section, scope)


def assumed(node: Mapping[str, Any], place: tuple[str, ...]) -> str | None:
    """Return the type that mmengine takes for a section that states none, if it takes one."""
    if place == ("train_cfg",) and "by_epoch" in node:
        return "EpochBasedTrainLoop" if node["by_epoch"] else "IterBasedTrainLoop"
    return TYPES.get(place)


def takes(node: Mapping[str, Any], place: Sequence[str], scope: str) -> Sequence[str]:
    """Return the arguments of the class that a node of a config stands for; none if unknown."""
    section = SECTIONS.get(place[0])
    if section is None or "type" not in node:
        return ()
    kind = find(node["type"], section.registries, node.get("_scope_", scope))
    return () if kind is None else [*signature(kind).arguments, *section.extra]


def _key(place: Sequence[str]) -> str:
    """Return the last key of a place that is not a position in a list."""
    return next(key for key in reversed(place) if not key.isdecimal())


def is_completed(place: Sequence[str]) -> bool:
    """Say whether what lies at a place is completed by what builds it."""
    return len(place) > 1 and bool(COMPLETED.fullmatch(_key(place)))


def _wrong(
    node: Mapping[str, Any], place: tuple[str, ...], section: Section, scope: str
) -> Iterator[str]:
    """Yield what is wrong with one node that has a type."""
    where, name = ".".join(place), node["type"]
    completed = is_completed(place)
    if completed and _key(place) not in LAYERS:
        return
    kind = find(name, section.registries, scope)
    # Those of the model itself, and what lies in it directly, are surely built by their type.
    part = place[0] != "model" or len([key for key in place if not key.isdecimal()]) <= 2
    if kind is None:
        hint = _registered(name, section.registries, scope)
        if hint or part:
            yield f"{where}: there is no type {name!r}." + (hint or _WHOSE)
        return
    if completed:
        return
    takes = signature(kind)
    closed = takes.closed or kind is CheckpointHook  # whose rest the runner's saving would refuse
    known = [*takes.arguments]
    unknown = [
        key for key in node if closed and key not in {"type", "_scope_", *known} | section.extra
    ]
    given = () if place == ("model",) else GIVEN
    required = takes.required if place[0] == "model" and part else ()
    there = {key for key in node if key != "backbone" or node[key] is not None}
    lacking = [key for key in required if key not in {*there, *given}]
    title = f"{where}: {getattr(kind, '__name__', kind)}"
    for key, parameter in takes.arguments.items():
        # mmdet's YOLOFHead, for one, says list of its channels and takes a number.
        if (
            key in node
            and key not in GIVEN
            and wants_a_list(parameter)
            and type(node[key]) in (int, float, bool)
        ):
            yield (
                f"{title}.{key} is a list, and {node[key]!r} is none. Write [{node[key]}], or one "
                "number for each place it stands for."
            )
    if lacking:
        yield f"{title} lacks {', '.join(map(repr, lacking))}." + ("" if unknown else _list(known))
    for key in unknown:
        same = SYNONYMS.get(key)
        hint = f" Did you mean {same!r}?" if same in known else nearest(key, known)
        end = _list(known) if key == unknown[-1] else ""
        yield f"{title} takes no argument {key!r}.{hint}{end}"


_WHOSE = (
    " Classes of this project start with 'swin_dense.'; for one of yours, name its module in "
    "custom_imports."
)


def _list(known: Sequence[str]) -> str:
    return f" It takes: {', '.join(known) or 'nothing'}."


def find(name: Any, registries: Sequence[Registry], scope: str) -> Any:
    """Return the class or function that a type stands for in a scope, None if there is none."""
    if not isinstance(name, str):
        return name
    for root in registries:
        with root.switch_scope_and_registry(scope) as registry:
            if (kind := registry.get(name)) is not None:
                return kind
    return None


def _registered(name: str, registries: Sequence[Registry], scope: str) -> str:
    """Say which registered name is that of a type, or near it, as this scope has to write it."""
    names: dict[str, str] = {}
    for root in registries:
        for child in sorted(root.children.values(), key=lambda child: child.scope == scope):
            child.import_from_location()
            prefix = "" if child.scope == scope else f"{child.scope}."
            names |= {key: prefix + key for key in child.module_dict}
        names |= {key: key for key in root.module_dict}
    scope_asked, _, last = name.rpartition(".")
    if scope_asked and not any(scope_asked in root.children for root in registries):
        return (
            f" Nothing of {scope_asked!r} is known here: install it, or name it in custom_imports."
        )
    if last in names:
        return f" Write type={names[last]!r}."
    close = difflib.get_close_matches(last, names, n=1, cutoff=0.6)
    return f" Did you mean {names[close[0]]!r}?" if close else ""


@functools.cache
def signature(kind: Callable) -> Signature:
    """Read what a class or function takes; a class that reads its `**kwargs` may take anything."""
    if not inspect.isclass(kind):
        own, rest = _parameters(kind)
        return Signature(own, _required(own), not rest)
    found: dict[str, inspect.Parameter] = {}
    required: tuple[str, ...] | None = None
    beyond: set[type] = set()  # classes that nothing is passed on to
    for parent in inspect.getmro(kind):
        if parent in beyond or "__init__" not in vars(parent):
            continue
        if parent is nn.Module:  # its signature says that it takes anything
            break
        if parent is object:
            return Signature(found, required or (), required is None)
        own, rest = _parameters(vars(parent)["__init__"])
        own.pop(next(iter(own), ""), None)  # self
        found = {**own, **found}
        required = _required(own) if required is None else required
        if rest and not _only_passed_on(vars(parent)["__init__"], rest):
            return Signature(found, required, False)
        if not rest:
            beyond |= set(inspect.getmro(parent))
    return Signature(found, required or (), True)


def wants_a_list(parameter: inspect.Parameter) -> bool:
    """Say whether an argument is annotated as a list or another row of values, and as no number.

    Given one number, torch.Tensor would make as many values of uninitialised memory.
    """
    note = parameter.annotation
    if isinstance(note, str):
        words = re.sub(r"\[[^\[\]]*\]", "", note)
        while words != (less := re.sub(r"\[[^\[\]]*\]", "", words)):
            words = less
        found = set(re.split(r"[\s|.]+", words)) - {"typing", "None", ""}
        return bool(found) and found <= ROWS_IN_WORDS
    return _is_row(note)


def _is_row(note: Any) -> bool:
    if typing.get_origin(note) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(note) if part is not type(None)]
        return bool(parts) and all(_is_row(part) for part in parts)
    return (typing.get_origin(note) or note) in ROWS


def default(kind: Any, name: str) -> Any:
    """Return what an argument is by itself: None if there is none, Parameter.empty if required.

    Looked for in the class and in the parents that `**kwargs` may reach, also where a constructor
    reads its `**kwargs` first.
    """
    for parent in inspect.getmro(kind) if inspect.isclass(kind) else ():
        if "__init__" in vars(parent):
            named, rest = _parameters(vars(parent)["__init__"])
            if name in named:
                return named[name].default
            if not rest:
                break
    return None


def _parameters(function: Callable) -> tuple[dict[str, inspect.Parameter], str]:
    """Return those with a name, and what the rest is called ("" if there is none)."""
    try:
        every = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a compiled one nothing is known
        return {}, "unknown"
    rest = [name for name, p in every.items() if p.kind is p.VAR_KEYWORD]
    named = {n: p for n, p in every.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    return named, "".join(rest)


def _required(parameters: Mapping[str, inspect.Parameter]) -> tuple[str, ...]:
    return tuple(name for name, p in parameters.items() if p.default is p.empty)


def _only_passed_on(constructor: Callable, rest: str) -> bool:
    """Say whether a constructor hands its `**rest` to its parents' and does nothing else with it.

    Some read it themselves, or take what nobody reads.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    passed = {
        id(keyword.value)
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"
        for keyword in call.keywords
        if keyword.arg is None
    }
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == rest]
    return bool(names) and all(id(name) in passed for name in names)
