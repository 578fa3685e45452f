"""Run a command by its name: swin-dense train CONFIG ..., the same commands as in tools/."""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import swin_dense
from swin_dense.cli.command import MISTAKE
from swin_dense.errors import nearest

COMMANDS = (
    "prepare-data",
    "browse-data",
    "doctor",
    "train",
    "replay",
    "test",
    "compare",
    "image-demo",
    "video-demo",
    "large-image-demo",
    "web-demo",
    "predict",
    "export",
    "convert",
    "model-info",
    "model-zoo",
    "benchmark",
    "check",
    "quickstart",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, with the others; return its status."""
    name, *others = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name == "--version":
        print(f"swin-dense {swin_dense.__version__}")
        return 0
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        hint = nearest(name, (*COMMANDS, "--help", "--version"))
        print(f"error: there is no {kind} {name}.{hint} See swin-dense --help.", file=sys.stderr)
        return MISTAKE
    return module(name).main(others, prog=f"swin-dense {name}")


def listing() -> str:
    """Return the commands, one to a line, each with the first line of its file."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{(module(name).__doc__ or '').splitlines()[0]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: swin-dense COMMAND ...",
            "",
            *lines,
            "",
            "swin-dense COMMAND --help tells its options, swin-dense --version which this is.",
        ]
    )


def module(name: str) -> ModuleType:
    """Import the file of a command."""
    return importlib.import_module(f"swin_dense.cli.{name.replace('-', '_')}")
