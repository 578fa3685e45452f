"""Show once more where the numbers of a training stopped being finite."""

import argparse
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/replay.py", __doc__)
    parser.add_argument("file", metavar="FILE", help="not_finite_N.pth of a run's work dir")
    return parser


def _replay(asked: argparse.Namespace) -> None:
    from swin_dense.openmmlab.engine import replay

    shown = replay.replay(Path(asked.file))
    print(f"images: {', '.join(shown.images)}")
    print(f"in the training: {shown.found}")
    print(f"here: {shown.again}")


main = command(_replay, _parser())
