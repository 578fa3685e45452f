"""Options that several commands take, worded once."""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from swin_dense.errors import InputError, MissingInputError


def parser(name: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_data(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--data",
        choices=["shapes"],
        help="use the built-in shapes set instead of the config's data",
    )
    to.add_argument("--data-root", metavar="DIR", help="the folder that holds the data set")
    to.add_argument(
        "--classes",
        metavar="FILE",
        help="a file with one class name per line: which of the annotations' classes to use, or "
        "the names of label values 0, 1, 2, ...; a name in parentheses is a value to ignore",
    )
    to.add_argument(
        "--image-scale",
        metavar="LONG,SHORT",
        type=scale,
        help="fit images into this size (pixels) instead of the config's, say 512,320",
    )


def add_config(to: argparse.ArgumentParser) -> None:
    to.add_argument("config", help="a config file, see configs/")
    to.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="change the config, say optim_wrapper.optimizer.lr=5e-5",
    )


def scale(text: str) -> tuple[int, int]:
    """ "512,320" -> (512, 320), the longer side first."""
    sides = tuple(sorted((int(part) for part in text.replace("x", ",").split(",")), reverse=True))
    if len(sides) != 2 or sides[1] < 32:
        raise argparse.ArgumentTypeError(
            f"two sides of at least 32 pixels, as in 512,320; got {text!r}"
        )
    return sides


def read_classes(path: str | None) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """Names, and the label values to ignore, of a --classes file.

    Raises:
        InputError: no names, a name twice, or an ignored value before a class.
    """
    if path is None:
        return None, None
    if not Path(path).is_file():
        raise MissingInputError(f"--classes: there is no file {path}. It holds one name per line.")
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    ignored = [i for i, line in enumerate(lines) if line.startswith("(")]
    names = tuple(line for line in lines if not line.startswith("("))
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise InputError(
            f"--classes: {path} must name every class once; "
            + (f"named twice: {', '.join(twice)}." if twice else "it names none.")
        )
    if ignored and ignored[0] < len(names):
        raise InputError(
            f"--classes: in {path} the ignored value {lines[ignored[0]]} stands before a class. "
            "Ignored values come after the last class; renumber the label maps otherwise."
        )
    return names, (*ignored, 255) if ignored else None
