"""Build what a config states, and say in words what the code of its classes refuses."""

import copy
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.registry import Registry
from torch import nn

from swin_dense.errors import InputError

REFUSALS = (AssertionError, KeyError, TypeError)  # what constructors of OpenMMLab raise


def build(registry: Registry, node: Mapping[str, Any], place: str) -> nn.Module:
    """Build a model or a part of one; mmengine's own build, but for the words of a refusal.

    Args:
        place: where the node is in the config, such as "model.backbone".

    Raises:
        InputError: a class refuses what it is given. It names the innermost part that does so when
            it is built alone.
    """
    kept = copy.deepcopy(node)  # some take a part out of what they are built from
    try:
        return registry.build(node)
    except REFUSALS as error:
        for where, part in _inner_first(kept, place):
            if _refuses(registry, part, error):
                raise _refused(f"{where}: {_name(part)}", error) from error
        raise _refused(f"{place}: {_name(kept)}", error) from error


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what a constructor within raises into an InputError that says what cannot be built."""
    try:
        yield
    except REFUSALS as error:
        raise _refused(what, error) from error


def _refused(what: str, error: Exception) -> InputError:
    line = traceback.extract_tb(error.__traceback__)[-1].line
    why = f"it requires: {str(error) or line}" if isinstance(error, AssertionError) else error
    return InputError(f"config: {what} cannot be built: {why}")


def _name(node: Mapping[str, Any]) -> str:
    return getattr(node["type"], "__name__", str(node["type"]))


def _inner_first(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each node with a type, with its place, those within it before it."""
    if isinstance(node, list | tuple):
        parts: Any = enumerate(node)
    else:
        parts = node.items() if isinstance(node, Mapping) else ()
    for key, part in parts:
        yield from _inner_first(part, f"{place}.{key}")
    if isinstance(node, Mapping) and "type" in node:
        yield place, node


def _refuses(registry: Registry, node: Mapping[str, Any], error: Exception) -> bool:
    """Say whether this part alone raises the same error."""
    try:
        with torch.device("meta"):
            registry.build(copy.deepcopy(node))
    except Exception as other:  # some parts are complete only within others
        return (type(other), str(other)) == (type(error), str(error))
    return False
