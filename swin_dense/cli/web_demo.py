"""Serve a page in the browser that shows what a model finds in pictures."""

import argparse
import ipaddress
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense import config_files
from swin_dense.cli import options, trained
from swin_dense.cli.command import command
from swin_dense.errors import InputError

if TYPE_CHECKING:
    from swin_dense.web.gradio_page import Example

SHIPPED = Path(__file__).resolve().parents[2] / "demo/weights"
SIZE = (160, 208)  # of the pictures of shapes to try it with
SEEDS = (3, 7, 12, 18)  # their numbers in the set of seed 0


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("demo/web_demo.py", __doc__)
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="one or several to choose from, each a config and its weights, or the folder of a run "
        "or a checkpoint that carries its config (the two small ones of demo/weights)",
    )
    trained.add_several(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (127.0.0.1: this machine)"
    )
    parser.add_argument(
        "--port", type=_port, metavar="N", help="to listen on (the first free one from 7860)"
    )
    parser.add_argument(
        "--examples", metavar="DIR", help="a folder of pictures; the page offers the first four"
    )
    parser.add_argument("--title", default="What is in the picture?", help="of the page")
    for flag, number, unit in (
        ("--max-mb", 20, "megabytes that a file may have"),
        ("--max-megapixels", 50, "megapixels that a picture may have"),
        ("--shrink-to", 4, "megapixels to which a larger picture is shrunk before the look"),
        ("--time-limit", 60, "seconds that a picture may take"),
        ("--waiting", 16, "pictures that may be in line"),
    ):
        parser.add_argument(
            flag, type=options.positive, default=number, metavar="N", help=f"{unit} ({number})"
        )
    return parser


def _serve(asked: argparse.Namespace) -> None:
    from swin_dense.web import gradio_page

    gradio_page.require()
    pairs = _pairs(asked.models)
    from PIL import Image

    from swin_dense.web.answers import Answers, Limits

    # `Answers` looks at the size itself and says so to whom it concerns.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    models: dict[str, Any] = {}
    for config, weights in pairs:
        model = trained.load_one(asked, config, weights)
        models[_name(config, weights, models)] = model
    limits = Limits(
        size=asked.max_mb * 2**20,
        pixels=asked.max_megapixels * 10**6,
        working=asked.shrink_to * 10**6,
        seconds=asked.time_limit,
        waiting=asked.waiting,
    )
    examples = _examples(asked.examples, models)
    if not _only_here(asked.host):
        print(
            f"warning: {asked.host} is reached from other machines. Whoever can reach this one can "
            "use the page: there is no password, and nothing is encrypted.",
            file=sys.stderr,
        )
    with gradio_page.served(
        Answers(models, limits),
        host=asked.host,
        port=asked.port,
        least=0.3 if asked.score_thr is None else asked.score_thr,
        examples=examples,
        title=asked.title,
    ) as address:
        print(f"{', '.join(models)}: {address}  (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


def _pairs(words: Sequence[str]) -> list[tuple[str | None, str]]:
    """Read words as models: a config takes the next one as its weights, others stand alone.

    Raises:
        InputError: a config has no weights after it, or the shipped ones are not there.
    """
    if not words:
        if not SHIPPED.is_dir():
            raise InputError(
                f"there is no {SHIPPED}: the small weights that this shows by default are in a "
                "checkout of the project, not in an installed package. Name a model of your own: a "
                "config and its weights, or the folder of a run."
            )
        found = sorted(SHIPPED.glob("*.safetensors"))
        return [(path.stem, str(path)) for path in found]
    pairs: list[tuple[str | None, str]] = []
    left = list(words)
    while left:
        word = left.pop(0)
        is_config = Path(word).suffix == ".py" or (
            word in config_files.names() and not Path(word).exists()
        )
        if not is_config:
            pairs.append((None, word))
        elif left:
            pairs.append((word, left.pop(0)))
        else:
            raise InputError(f"{word}: this is a config. Name its weights after it.")
    return pairs


def _name(config: str | None, weights: str, taken: Any) -> str:
    """Return what the page calls a model: its config, else its weights, with a number if taken."""
    name = Path(config or weights).stem or weights
    number = 2
    while name in taken:
        name = f"{Path(config or weights).stem} {number}"
        number += 1
    return name


def _examples(folder: str | None, models: Any) -> list["Example"]:
    """Return pictures to try the page with: of a folder; else shapes, if all models know these."""
    from swin_dense.datasets import images, shapes
    from swin_dense.web.gradio_page import Example

    if folder is not None:
        found = images.find_images(folder)[:4]
        return [Example(path.name, images.read_rgb(path)) for path in found]
    if any(set(model.classes) - set(shapes.LABELS) for model in models.values()):
        return []
    return [
        Example(f"shapes {i + 1}", shapes.draw(0, "val", seed, SIZE)[0])
        for i, seed in enumerate(SEEDS)
    ]


def _only_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    """Read the number of a port."""
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


main = command(_serve, _parser())
