"""Find a config by its name or its path. Nothing is read here, and nothing heavy imported.

In a checkout our configs are the files of configs/; an installed package carries them inside.
"""

from pathlib import Path

from swin_dense.errors import MissingInputError, nearest

PACKAGE = Path(__file__).parent
FOLDER = next(
    (folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()),
    PACKAGE / "configs",
)


def names() -> list[str]:
    """Return the names of our configs, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def find_config(name_or_path: str | Path) -> Path:
    """Return the file of a config.

    Args:
        name_or_path: a path, or the name of one of ours, "mask_rcnn_swin_t" with or without ".py",
            which is found from any folder. A file that is there wins over a name.

    Raises:
        MissingInputError: it is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    known = names()
    if path.parent == Path() and path.name.removesuffix(".py") in known:
        return FOLDER / f"{path.name.removesuffix('.py')}.py"
    beside = [other.name for other in path.parent.glob("*.py")]
    raise MissingInputError(
        f"config: there is no file {path}, and none of ours in {FOLDER} has that name."
        f"{nearest(path.name, beside) or nearest(path.stem, known)} Give the path of a file, or a "
        "name without folder such as mask_rcnn_swin_t."
    )
