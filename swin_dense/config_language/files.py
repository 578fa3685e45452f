"""Read the file of a config: its text, and for JSON and YAML its values.

YAML is read without tags, aliases that multiply and merge keys; mmengine's own reading of it builds
any Python object that a tag names.
"""

import ast
import json
import warnings
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with mmengine

from swin_dense.config_language.limits import DEEP, ITEMS, TEXT, Budget, MistakeError, NotDataError
from swin_dense.errors import InputError, MissingInputError

SUFFIXES = (".py", ".json", ".yaml", ".yml")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: Path) -> str:
    """Return the text of a config's file.

    Raises:
        InputError: it has another suffix, is no file, too long, or not UTF-8.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"config: {path} ends in none of {', '.join(SUFFIXES)}.")
    try:
        if not path.is_file():
            raise MissingInputError(f"config: there is no file {path}.")
        with path.open("rb") as file:
            raw = file.read(4 * TEXT + 1)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(f"config: {path}, line {line}: it is not UTF-8 text.") from error
    except OSError as error:
        raise InputError(f"config: {path} cannot be read: {error.strerror}.") from error
    if len(text) > TEXT:
        raise InputError(f"config: {path} has more than {TEXT} characters, the limit.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_python(text: str) -> ast.Module:
    """Return the statements of a text.

    Raises:
        MistakeError: it is no Python, or nested too deep.
        SyntaxError: it is no Python, with its line.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd backslashes in texts
            return ast.parse(text)
    except (RecursionError, MemoryError) as error:
        raise MistakeError("brackets or operators lie too deep in one another") from error
    except ValueError as error:  # a null byte, or a number of too many digits
        if isinstance(error, SyntaxError):
            raise
        raise MistakeError(str(error)) from error


def parse_values(text: str, suffix: str, budget: Budget) -> dict[str, Any]:
    """Return the values of a JSON or YAML text.

    Raises:
        MistakeError: it is neither, not a mapping, nested too deep, or too large.
        NotDataError: a YAML tag asks for a Python object.
    """
    try:
        found = json.loads(text) if suffix == ".json" else _yaml(text)
    except RecursionError as error:
        raise MistakeError("lists and dicts lie too deep in one another") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise MistakeError(f"{where}{getattr(error, 'problem', None) or error}") from error
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        raise MistakeError(f"it cannot be read as {suffix[1:].upper()}: {error}"[:300]) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise MistakeError("it is no mapping of names to values")
    budget.measure(found)
    return found


def _yaml(text: str) -> Any:
    """Return the value of a YAML text, once its events are known to be few and plain."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if depth > DEEP or count > 2 * ITEMS:
            raise MistakeError(
                f"line {line}: it has more than {ITEMS} values, or more than {DEEP} in one another"
            )
        tag = getattr(event, "tag", None)
        if tag and not tag.startswith("tag:yaml.org,2002:"):
            raise NotDataError(f"line {line}: the YAML tag {tag[:40]}")
        if tag and "python" in tag:
            raise NotDataError(f"line {line}: the YAML tag {tag[:40]}, a Python object")
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise MistakeError(f"line {line}: the merge key << ; write its keys out")
    return yaml.load(text, Loader=_LOADER)
