"""A path the user gave is a file, or a folder, or an error that says what is there instead."""

from __future__ import annotations

from pathlib import Path

from swin_dense.errors import InputError, MissingInputError, nearest


def require_file(path: str | Path, what: str) -> Path:
    """`path` if it is a file; `what` names its part in the message, as in "annotation file"."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: the {what} must be a file, this is a folder. Name a file in it.")
    if not path.exists():
        raise MissingInputError(f"{path}: the {what} does not exist. {_what_is_there(path)}")
    return path


def require_folder(path: str | Path, what: str) -> Path:
    """`path` if it is a folder."""
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path}: the {what} does not exist. {_what_is_there(path)}")
    if not path.is_dir():
        raise InputError(f"{path}: the {what} must be a folder, this is a file. Name its folder.")
    return path


def first_names(names: list[str], count: int = 3) -> str:
    """Name the first few of a list, and how many more there are: "a, b, c and 4 more"."""
    more = len(names) - count
    return ", ".join(map(str, names[:count])) + (f" and {more} more" if more > 0 else "")


def _what_is_there(path: Path) -> str:
    """Say up to where the path exists, and which name there is nearest to the one it lacks."""
    parent, name = path.parent, path.name
    while not parent.exists() and parent != parent.parent:
        parent, name = parent.parent, parent.name
    if not parent.is_dir():
        return f"{parent} is a file, not a folder: correct the path."
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    hint = nearest(name, names)
    if hint:
        return f"{parent.resolve()} has no {name!r}.{hint}"
    return f"{parent.resolve()} has {first_names(names) or 'nothing in it'}: correct the path."
