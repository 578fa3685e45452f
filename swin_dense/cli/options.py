"""Word once the options that several commands take."""

import argparse
import ast
import contextlib
import json
import os
import re
import sys
from typing import Any, NoReturn

from swin_dense.errors import nearest

CONFIG = "a file, or the name of one of our configs such as mask_rcnn_swin_t"
NUMBER = re.compile(r"-\.?\d")
QUOTES = ("'", '"')
EXAMPLE = """'{"a": 1}'"""
# Keys whose values are paths, or parts of one: nothing in them means a list or a number.
PLACE = re.compile(
    r"(^|\.)(data_root|work_dir|load_from|ann_file|checkpoint|outfile_prefix|out_dir|save_dir|"
    r"data_prefix\.\w+)\s*$"
)
LAUNCHERS = {  # the program that starts processes, and what it has each of them know
    "pytorch": ("torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")),
    "slurm": ("srun", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST")),
}


class Parser(argparse.ArgumentParser):
    """Name the nearest option for a misspelt one, and complete none from its first letters."""

    def __init__(self, prog: str, text: str | None) -> None:
        super().__init__(
            prog=prog,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        # Asked before the rest: an unknown option leaves its value over, which argparse would
        # take for the config, or call for one that is missing.
        for word in sys.argv[1:] if args is None else args:
            name = word.partition("=")[0]
            if word == "--":
                break
            if not name.startswith("-") or " " in name or NUMBER.match(name) or name == "-":
                continue
            known = [flag for action in self._actions for flag in action.option_strings]
            if name not in known:
                self.error(f"there is no option {name}.{nearest(name, known)}")
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        # Options may stand between arguments of which one may be left out.
        return self.parse_intermixed_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith(("?", ".")) else "."
        self.exit(2, f"error: {message}{end} See {self.prog} --help.\n")


def parser(prog: str, text: str | None) -> Parser:
    """Return a parser without options; `text` is what its help begins with."""
    return Parser(prog, text)


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


def add_val_share(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--val-share",
        metavar="SHARE",
        type=part,
        help="divide a set whose labels are in one file (or folder) for all images: this share of "
        "the images, say 0.2, is for validation; by --seed, each class in both parts",
    )


def add_config(to: argparse.ArgumentParser) -> None:
    to.add_argument("config", help=CONFIG)
    add_settings(to)


def add_trained(to: argparse.ArgumentParser) -> None:
    """Ask for a trained model; a checkpoint of ours needs no config."""
    to.add_argument(
        "config", nargs="?", help=f"{CONFIG}; not needed where the checkpoint carries its config"
    )
    to.add_argument(
        "checkpoint",
        help="weights of the whole model: a path, an address, or the folder of a run",
    )
    add_settings(to)


def add_settings(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--cfg-options",
        nargs="+",
        action=Settings,
        metavar="KEY=VALUE",
        help="change the config, say optim_wrapper.optimizer.lr=5e-5",
    )
    add_trust(to)


def add_trust(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--trust-config",
        action="store_true",
        help="run the config as a program, whatever it does, instead of reading it as data",
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


def add_launcher(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--launcher",
        type=launcher,
        choices=["none", *LAUNCHERS],
        default="none",
        help="what started this process as one of several (none)",
    )
    # Older launchers give it; torch reads the same from the environment.
    to.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)


def launcher(text: str) -> str:
    """Check that the launcher did start this process, and that none did if none is named.

    Raises:
        argparse.ArgumentTypeError: the environment says otherwise: processes of one run would not
            find each other, or each would do the whole work.
    """
    given = os.environ
    if text == "slurm" and "TORCHELASTIC_RUN_ID" in given:
        raise argparse.ArgumentTypeError(
            "torchrun started this process, srun only the torchruns: give --launcher pytorch"
        )
    if text in LAUNCHERS:
        program, variables = LAUNCHERS[text]
        if missing := [name for name in variables if name not in given]:
            raise argparse.ArgumentTypeError(
                f"{text} is for processes that {program} starts, and {missing[0]} is not set. As "
                f"in {program} {sys.argv[0]} ...; leave the option out to run one process"
            )
    elif text == "none":
        _require_one_process()
    tasks = given.get("SLURM_STEP_NUM_TASKS", "1")
    if text == "pytorch" and tasks != "1" and given.get("GROUP_WORLD_SIZE") == "1":
        raise argparse.ArgumentTypeError(
            f"srun started torchrun {tasks} times, each as a run by itself: give torchrun "
            f"--nnodes {tasks} --rdzv-backend c10d --rdzv-endpoint HOST:PORT, and leave out "
            "--standalone"
        )
    return text


def _require_one_process() -> None:
    given = os.environ
    if "RANK" in given or "TORCHELASTIC_RUN_ID" in given:
        program = "torchrun" if "TORCHELASTIC_RUN_ID" in given else "WORLD_SIZE says that something"
        count, use = given.get("WORLD_SIZE", "1"), "pytorch"
    else:
        program, count, use = "srun", given.get("SLURM_STEP_NUM_TASKS", "1"), "slurm"
    if count != "1":
        raise argparse.ArgumentTypeError(
            f"{program} started {count} processes, which would each do the whole work and "
            f"write the same files: give --launcher {use}"
        )


def scale(text: str) -> tuple[int, int]:
    """Read "512,320" as (512, 320), the longer side first; both at least 32."""
    numbers = text.replace("x", ",").split(",")
    sides = sorted((int(n) for n in numbers if n.strip().isdecimal()), reverse=True)
    if len(numbers) != 2 or len(sides) != 2 or sides[1] < 32:
        raise argparse.ArgumentTypeError(
            f"two sides of at least 32 pixels, as in 512,320; got {text!r}"
        )
    return sides[0], sides[1]


def natural(text: str) -> int:
    """Read a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number from 0, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"a whole number from 1, not {text!r}")
    return int(text)


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number from 0 to 1, not {text!r}")


def part(text: str) -> float:
    """Read a number between 0 and 1, neither of them."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number between 0 and 1, as in 0.2, not {text!r}")


class Settings(argparse.Action):
    """Collect KEY=VALUE pairs in a dictionary, values read by `value`; the last of a key wins."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        pairs = dict(getattr(namespace, self.dest) or {})
        for text in values:
            key, equals, written = text.partition("=")
            if not (key.strip() and equals):
                parser.error(
                    f"{option_string}: write KEY=VALUE, not {text!r}. A value with spaces stands "
                    "in quotes, as in 'KEY=my value'."
                )
            try:
                pairs[key.strip()] = _place(written) if PLACE.search(key) else value(written)
            except ValueError as error:
                parser.error(f"{option_string}: write KEY=VALUE, not {text!r}: {error}.")
        setattr(namespace, self.dest, pairs)


def value(text: str) -> Any:
    """Read a value as OpenMMLab's tools do, but leave the spaces within a text where they are.

    1 and 2.5 are numbers, true and False switches, None is none; "1,2" and "[1,2]" are lists, (1,2)
    is a tuple, one within the other too; {"a": 1} is a dict, with its names in quotes; everything
    else is a text, without quotes around it. A comma between quotes is one of the text.

    Raises:
        ValueError: in a list, a bracket has no partner; a dict cannot be read.
    """
    text = text.strip()
    bare = _without_quotes(text)
    if bare != text and bare[:1] not in ("(", "[", "{") and "," in bare:
        return bare
    text = bare
    if text[:1] + text[-1:] == "{}":
        return _dict(text)
    if "," in text and len(parts := _parts(text)) > 1:
        return [value(part) for part in _without_end(parts)]
    ends = text[:1] + text[-1:]
    if ends in ("()", "[]"):
        values = [value(part) for part in _without_end(_parts(text[1:-1]))]
        return tuple(values) if ends == "()" else values
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), None if text == "None" else text)


def _place(text: str) -> str | None:
    """Read a path as it is written: commas, brackets and digits are parts of a name."""
    text = _without_quotes(text)
    return None if text == "None" else text


def _without_quotes(text: str) -> str:
    """Take off one pair of quotes around a text; one without its partner is a part of it."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES:
        inner = text[1:-1]
        return text if text[0] in inner else inner.strip()
    return text


def _dict(text: str) -> Any:
    """Read a dict as JSON or Python write it; what has no colon is a text in braces."""
    if ":" not in text and text != "{}":
        return text
    with contextlib.suppress(ValueError):
        return json.loads(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"a dict has its names in quotes, as in {EXAMPLE}") from None


def _parts(text: str) -> list[str]:
    """Split at the commas outside of all brackets, and of quotes around a whole part."""
    parts, depth, quote, before = [""], 0, "", ","
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES and before in "([{,:":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
        before = character if character.strip() else before
    if depth:
        raise ValueError(f"a bracket without its partner in {text!r}")
    return parts


def _without_end(parts: list[str]) -> list[str]:
    """Leave out the last part if it is empty: "1," and "" end so."""
    return parts if parts[-1].strip() else parts[:-1]
