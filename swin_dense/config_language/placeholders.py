"""What stands in double braces in a config's text: parts of its path, of its bases, variables.

As mmengine reads them: replaced in the text, before it is evaluated.
"""

import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_dense.config_language.limits import MistakeError, NotDataError
from swin_dense.errors import nearest

# The environment may hold secrets, which a config could put into names of files or addresses.
PREFIX = "SWIN_DENSE_"
VARIABLES = ("DATA_DIR", "DATA_ROOT", "DATASET_ROOT", "MMDET_DATASETS", "WORK_DIR")

MOST = 10_000  # in one file
_PATH = re.compile(r"\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}")
_VARIABLE = re.compile(r"\{\{['\"]?\s{0,20}\$(\w+)\s{0,20}:\s{0,20}(\S{0,200}?)\s{0,20}['\"]?\}\}")
_OF_BASES = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")


def of_path(text: str, path: Path) -> str:
    """Replace what stands for the config's own path, which is absolute."""
    if text.count("{{") > MOST:
        raise MistakeError(f"it has more than {MOST} pairs of braces, the limit")
    parts = {
        "fileDirname": str(path.parent),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }
    return _PATH.sub(lambda match: parts[match[1]].replace("\\", "/"), text)


def of_environment(text: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Replace environment variables, `{{$NAME:default}}`.

    Returns:
        the text, and the variables that were found.

    Raises:
        NotDataError: one is not among those that configs may read.
        MistakeError: one is not set and has no default.
    """
    found: dict[str, str] = {}

    def value_of(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in VARIABLES and not name.startswith(PREFIX):
            raise NotDataError(
                f"the environment variable {name}: configs read {', '.join(VARIABLES)} and those "
                f"that begin with {PREFIX}"
            )
        if name in environment:
            value = found[name] = environment[name]
        if not value:
            raise MistakeError(f"the environment variable {name} is not set and has no default")
        if "\n" in value:
            raise MistakeError(f"the environment variable {name} has several lines")
        return value

    return _VARIABLE.sub(value_of, text), found


def of_bases(text: str) -> tuple[str, dict[str, str]]:
    """Replace what stands for a part of a base, `{{_base_.a.b}}`, by a text that stands for it.

    Returns:
        the text, and what each such text stands for, "a.b".
    """
    places: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        place = match[1]
        for name, known in places.items():
            if known == place:
                return f'"{name}"'
        name = f"_{place}_{uuid.uuid4().hex}"
        places[name] = place
        return f'"{name}"'

    return _OF_BASES.sub(stand_in, text), places


def filled(value: Any, places: Mapping[str, str], bases: Mapping[str, Any]) -> Any:
    """Return a copy of a value with the parts of the bases in it.

    Raises:
        MistakeError: a base lacks such a part, or it stands within a text.
    """
    if isinstance(value, str):
        if value in places:
            return _looked_up(places[value], bases)
        for name, place in places.items():
            if name in value:
                raise MistakeError(
                    f"{{{{_base_.{place}}}}} stands within a text, where it is not replaced. Write "
                    f"f'{{_base_.{place}}}/...'"
                )
        return value
    if isinstance(value, dict):
        copy = type(value)()
        for key, part in dict.items(value):
            copy[filled(key, places, bases)] = filled(part, places, bases)
        return copy
    if isinstance(value, list | tuple):
        return type(value)(filled(part, places, bases) for part in value)
    return value


def _looked_up(place: str, bases: Mapping[str, Any]) -> Any:
    value: Any = bases
    for name in place.split("."):
        if not isinstance(value, Mapping) or name not in value:
            hint = nearest(name, value) if isinstance(value, Mapping) else ""
            raise MistakeError(f"{{{{_base_.{place}}}}}: no base has {name!r} there.{hint}")
        value = value[name]
    return value
