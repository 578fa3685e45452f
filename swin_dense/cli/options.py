"""Options that several commands take, worded once."""

import argparse

from mmengine.config import DictAction


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
        action=Settings,
        metavar="KEY=VALUE",
        help="change the config, say optim_wrapper.optimizer.lr=5e-5",
    )


def add_allow_missing(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--allow-missing",
        nargs="+",
        default=[],
        metavar="NAME",
        help="weights of the model that the file may lack and that stay at random: the start of "
        "their names, say neck or roi_head.mask_head, or a pattern such as '*.norm3.*'",
    )


def scale(text: str) -> tuple[int, int]:
    """ "512,320" -> (512, 320), the longer side first."""
    sides = tuple(sorted((int(part) for part in text.replace("x", ",").split(",")), reverse=True))
    if len(sides) != 2 or sides[1] < 32:
        raise argparse.ArgumentTypeError(
            f"two sides of at least 32 pixels, as in 512,320; got {text!r}"
        )
    return sides


def natural(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number from 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text!r}")
    return int(text)


class Settings(DictAction):
    """KEY=VALUE pairs; what cannot be read is named instead of raising inside mmengine."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (ValueError, AssertionError, IndexError):
                parser.error(f"{option_string}: write KEY=VALUE, not {value!r}")
