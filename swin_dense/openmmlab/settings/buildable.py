"""What a config has built: only what a registry knows, unless the user trusts the config.

mmengine takes a type that it does not find for the name of a module, which it imports, and of any
function in it, which it calls: a config that is only read could still run anything when its model
is built. Some parts of OpenMMLab evaluate a text that should be a name, or run a config of their
own.
"""

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import MODELS, Registry

from swin_dense.config_language.limits import DATA
from swin_dense.errors import InputError, nearest
from swin_dense.openmmlab.settings import sections

NAME = re.compile(r"(?:(\w+)\.)?([A-Za-z_]\w*)")
EVALUATED = ("model", "custom_hooks")  # where a text may be evaluated
SAFE = ("init_cfg",)  # names of files, and patterns


def foreign_names(config: Mapping[str, Any]) -> Iterator[Any]:
    """Yield each type, constructor or scope that is no registered name, and texts like calls."""
    scopes = _scopes()
    for part in sections.walk(config):
        if part.get("_scope_") not in (None, *scopes):
            yield part["_scope_"]
        names = [part[key] for key in ("type", "constructor") if key in part]
        names += [name for name in [part.get("runner_type")] if name]
        for name in names:
            match = NAME.fullmatch(name) if isinstance(name, str) else None
            if not match or match[1] not in (None, *scopes) or _is_module(match[2]):
                yield name
    for section in EVALUATED:
        for text in _texts(config.get(section) or {}):
            if "(" in text or text.endswith(".py"):
                yield text


def check(config: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a config that has something built that nobody registered.

    Raises:
        InputError: with the first such name.
    """
    for name in foreign_names(config):
        hint = nearest(str(name).partition(".")[0], _scopes()) if isinstance(name, str) else ""
        shown = repr(name)
        raise InputError(
            f"config: {path} wants {shown[:80]} to be built, which is no registered name; building "
            f"it could run anything.{hint} {DATA}"
        )


def _scopes() -> set[str]:
    return {"mmengine", *MODELS.root.children, *MODULE2PACKAGE}


@functools.cache
def _is_module(name: str) -> bool:
    """Say whether a name is registered nowhere, and would be imported as a module."""
    every = [root for root in vars(roots).values() if isinstance(root, Registry)]
    every += [child for root in every for child in root.children.values()]
    if any(name in registry.module_dict for registry in every):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ValueError, ImportError):
        return True


def _texts(node: Any) -> Iterator[str]:
    """Yield all texts in a part of a config, except in what it starts from."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key not in SAFE:
                yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)
