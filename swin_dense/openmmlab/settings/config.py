"""Read a config and find its mistakes before anything is built from it.

mmengine keeps every name a config defines and ignores the ones it does not know; a misspelt
section would train with the default, silently. Here it is an error with the nearest known name.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from swin_dense.config_files import find_config
from swin_dense.errors import InputError, nearest, one_edit
from swin_dense.openmmlab.settings import (
    buildable,
    channels,
    image_sizes,
    readers,
    reading,
    runners,
    save_best,
    signatures,
    statistics,
    unread_keys,
)

# Sections read by the runner, then the few that mmengine or our commands read from the config.
SECTIONS = frozenset(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"} | {
    "activation_checkpointing",
    "allow_missing",
    "compile",
    "custom_imports",
    "data",
    "efficient_conv_bn_eval",
    "extend",
    "find_unused_parameters",
    "model_wrapper_cfg",
    "on_not_finite",
    "peer_timeout",
    "pretrained",
    "sync_bn",
}
# What the keys of a section without a type may be; the runner reads no others.
KEYS = {
    "env_cfg": ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit"),
    "env_cfg.mp_cfg": ("mp_start_method", "opencv_num_threads"),
    "randomness": ("seed", "diff_rank_seed", "deterministic"),
    "auto_scale_lr": ("enable", "base_batch_size"),
    "env_cfg.dist_cfg": (
        *("init_backend", "port"),
        *inspect.signature(torch.distributed.init_process_group).parameters,
    ),
}
# What mmengine takes for a hook or section that is left out; an option may change a part of it.
TYPES = {
    "default_hooks.runtime_info": "RuntimeInfoHook",
    "default_hooks.timer": "IterTimerHook",
    "default_hooks.sampler_seed": "DistSamplerSeedHook",
    "default_hooks.logger": "LoggerHook",
    "default_hooks.param_scheduler": "ParamSchedulerHook",
    "default_hooks.checkpoint": "CheckpointHook",
    "visualizer": "Visualizer",
}
LISTS = ("custom_hooks", "param_scheduler")
OWN_OPTION = ("launcher",)  # of the commands alone
ELSEWHERE = frozenset({"tta_model", "tta_pipeline"})  # read by other tools of OpenMMLab
PIPELINES = ("train_pipeline", "val_pipeline", "test_pipeline")  # names that configs give to parts
REQUIRED = ("model", "default_scope")
SCOPES = ("mmdet", "mmseg")


def load(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
    trust_config: bool = False,
) -> Config:
    """Read a config, lay `options` (dotted key -> value) over it, fill in what is left open.

    Args:
        path: of its file, or the name of one of ours, see `config_files.find_config`.
        say: takes each line about a value that was stated and is another now, see `channels.fill`.
        trust_config: run it as a program, and build what it names; else it is data, see `reading`
            and `buildable`.

    Raises:
        MissingInputError: there is no such file, and none of ours has that name.
        InputError: it cannot be read, or has an unknown or missing section, or an option
            names a key that is not there but resembles one that is, or a class takes other
            arguments, or its parts do not fit.
    """
    path = find_config(path)
    config = reading.read(path, trust_config)
    runners.require_ours(config)
    if not trust_config:
        buildable.check(config._cfg_dict, path)
    readers.check_pipelines(config, path)
    return complete(config, path, options, say)


def complete(
    config: Config,
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> Config:
    """Lay `options` over a config that was read, fill in what it leaves open, and return it.

    Raises:
        InputError: as for `load`; `path` is what messages call it.
    """
    check_sections(config, path)
    if options:
        lay_over(config, options)
    runners.require_ours(config)
    _check_keys(config)
    if isinstance(config.get("param_scheduler"), dict):
        config.param_scheduler = [config.param_scheduler]
    if config.default_scope not in SCOPES:
        raise InputError(
            f"config: default_scope {config.default_scope!r} is none of {', '.join(SCOPES)}, the "
            "libraries whose models we train."
        )
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        _check_loader(config.get(name), name)
    _check_rates(config)
    save_best.check(config)
    misspelt, unread = unread_keys.find(config)
    signatures.check(config, misspelt)
    if unread:
        say(f"config: nothing reads {', '.join(unread)}")
    for line in channels.fill(config):
        say(line)
    statistics.follow(config, say)
    image_sizes.pad_to_crop(config)
    return config


def _check_loader(loader: dict | None, name: str) -> None:
    for key, least in (("batch_size", 1), ("num_workers", 0)):
        value = (loader or {}).get(key, least)
        if type(value) is not int or value < least:
            raise InputError(f"config: {name}.{key} is a whole number from {least}, not {value!r}.")
    if loader and not loader.get("num_workers"):
        loader["persistent_workers"] = False  # torch refuses to keep workers there are none of


def _check_rates(config: Config) -> None:
    """Check that what the learning rate follows is stated in full, and that somebody reads it."""
    scaling = config.get("auto_scale_lr")
    if scaling is not None:
        recipe = scaling.get("base_batch_size") if isinstance(scaling, Mapping) else None
        if type(recipe) is not int or recipe < 1:
            raise InputError(
                "config: auto_scale_lr.base_batch_size is the batch that the learning rate is "
                f"stated for, a whole number from 1, not {recipe!r}. As in auto_scale_lr = "
                "dict(enable=True, base_batch_size=16)."
            )
    wrapper = config.get("optim_wrapper") or {}
    options = wrapper.get("paramwise_cfg") or {}
    if "layer_decay" in options and wrapper.get("constructor") != "swin_dense.LayerDecay":
        raise InputError(
            "config: optim_wrapper.paramwise_cfg.layer_decay is read by constructor="
            f"'swin_dense.LayerDecay' alone, this is {wrapper.get('constructor')!r}. State it in "
            "optim_wrapper, as configs/_base_/adamw.py does."
        )
    if wrapper and not isinstance(wrapper.get("optimizer"), Mapping):
        raise InputError(
            "config: optim_wrapper.optimizer says which optimizer updates the whole model; several "
            f"in one run are not supported. This has {', '.join(wrapper) or 'nothing'}. As in "
            "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))."
        )


def check_sections(config: Mapping[str, Any], path: str | Path) -> None:
    """Check that each top-level name is a section somebody reads, or names a value within one.

    Numbers may have any name; texts and switches one that does not resemble a section's, unless a
    key within a section has the same name and value. None is a section's name with a slip of the
    pen.
    """
    known = SECTIONS | ELSEWHERE
    within = [part for name in SECTIONS & config.keys() for part in _parts(config[name])]
    for name, value in config.items():
        if name not in known and (close := _meant(name, value, config)):
            raise _unread_section(name, path, f" Did you mean {close!r}?")
        if name in known or type(value) in (int, float) or (name, value) in within:
            continue
        if not isinstance(value, str | bool) and any(value == part for _, part in within):
            continue
        hint = nearest(name, SECTIONS)
        if hint or isinstance(value, Mapping):
            raise _unread_section(name, path, hint)
    missing = [name for name in REQUIRED if name not in config]
    if missing:
        raise InputError(
            f"config: {path} lacks {', '.join(missing)}. An experiment names its fragments in "
            "_base_, see configs/mask_rcnn_swin_t.py."
        )


def _meant(name: str, value: Any, config: Mapping[str, Any]) -> str | None:
    """Return the name that another is a slip of the pen away from: a section's or a pipeline's."""
    known = {*SECTIONS, *ELSEWHERE}
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        known |= {*PIPELINES, *config}
    numbered = any(letter.isdigit() for letter in name)
    close = () if numbered or name in PIPELINES else (one for one in known if one_edit(name, one))
    return next(iter(close), None)


def _unread_section(name: str, path: str | Path, hint: str) -> InputError:
    return InputError(
        f"config: nothing reads the section {name!r} of {path}.{hint} "
        f"The sections are: {', '.join(sorted(SECTIONS))}."
    )


def _parts(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield all values in a section, at any depth, each with its key or place."""
    if isinstance(node, Mapping):
        inside: Iterable = node.items()
    else:
        inside = enumerate(node) if isinstance(node, list | tuple) else ()
    for key, part in inside:
        yield key, part
        yield from _parts(part)


def lay_over(config: Config, options: Mapping[str, Any]) -> None:
    """Change `config` by `options`, dotted key -> value, as `check_options` allows them.

    A part of a hook or section that the config leaves out is laid over what mmengine would take.
    """
    check_options(config, options)
    config.merge_from_dict(dict(options))
    for place, kind in TYPES.items():
        node = _at(config, place)
        if node is not None and any(dotted.startswith(place) for dotted in options):
            node.setdefault("type", kind)


def _at(config: Config, place: str) -> Any:
    """Return the dict at a dotted place, None if there is none."""
    node: Any = config._cfg_dict
    for part in place.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else None


def _check_keys(config: Config) -> None:
    """Refuse a key that nothing reads in a section without a type."""
    for place, keys in KEYS.items():
        for key in _at(config, place) or ():
            if key not in keys:
                raise InputError(
                    f"config: nothing reads {place}.{key}.{nearest(key, keys)} "
                    f"{place} has: {', '.join(keys)}."
                )
    known = [place.rpartition(".")[2] for place in TYPES if place.startswith("default_hooks.")]
    for name, hook in (config.get("default_hooks") or {}).items():
        if close := next((one for one in known if one_edit(name, one)), None):
            raise InputError(
                f"config: default_hooks.{name} would be a hook beside default_hooks.{close}. "
                f"Did you mean {close!r}?"
            )
        if isinstance(hook, Mapping) and "type" not in hook:
            raise InputError(
                f"config: default_hooks.{name} has no type, so nothing reads it."
                f"{nearest(name, known)} The runner's own hooks are: {', '.join(known)}."
            )


def check_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Check that a dotted key leads through keys that exist, or that something reads.

    A section may be new, and so may be what its class takes. Below the first key, another one may
    be new if it is like none.
    """
    for dotted in options:
        if dotted in OWN_OPTION:
            raise InputError(f"`cfg_options` {dotted}: the command has `{dotted}` for it.")
        node: Any = getattr(config, "_cfg_dict", config)
        parts = dotted.split(".")
        for depth, part in enumerate(parts):
            where = ".".join(parts[:depth])
            if isinstance(node, Sequence) and not isinstance(node, str):
                if not part.isdigit() or int(part) >= len(node):
                    raise InputError(
                        f"`cfg_options` {dotted}: {where} is a list of {len(node)}, {part!r} is "
                        f"not a place in it (0 to {len(node) - 1})."
                    )
                node = node[int(part)]
                continue
            known = list(node) if isinstance(node, Mapping) else []
            if part == "in_channels":  # open until the backbone is known, though like others
                break
            if part not in known:
                if not _is_read(config, parts, depth, node):
                    raise _leads_nowhere(dotted, where, part, known, depth)
                break
            node = node[part]


def _is_read(config: Mapping[str, Any], parts: Sequence[str], depth: int, node: Any) -> bool:
    """Say whether a key that the config lacks, `parts[depth]` of `node`, is one that is read."""
    part, where = parts[depth], ".".join(parts[:depth])
    if not isinstance(node, Mapping):
        return False
    if depth == 0:
        in_a_list = part in LISTS and len(parts) > 1
        return part in SECTIONS and not in_a_list
    keys = KEYS.get(where, ()) or [t.rpartition(".")[2] for t in TYPES if t.startswith(f"{where}.")]
    if part in keys or part in signatures.takes(node, parts[:depth], config["default_scope"]):
        return True
    return not nearest(part, node)


def _leads_nowhere(
    dotted: str, where: str, part: str, known: Sequence[str], depth: int
) -> InputError:
    if depth == 0 and part in LISTS:
        return InputError(
            f"`cfg_options` {dotted}: {part} is a list that this config leaves out; state it in "
            "the config."
        )
    names = [*known, *(SECTIONS if depth == 0 else ())]
    return InputError(
        f"`cfg_options` {dotted}: {where or 'the config'} has no {part!r}.{nearest(part, names)} "
        f"It has: {', '.join(map(str, known)) or 'nothing below it'}."
    )
