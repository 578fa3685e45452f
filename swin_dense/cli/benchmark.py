"""Measure speed and memory as ratios: ours against others.

ops       our ops against plain torch, the usual path of window attention, SDPA, mmcv's functions
backbone  our Swin-T against that of mmdet, transformers and timm, and against mmdet's exported to
          ONNX Runtime and OpenVINO, where they are installed; our version 2 against our version 1
memory    what a training step adds to the peak of a process, ours against mmdet's; and
          deformable attention against mmcv's
growth    our Swin-T at a large image against a small one

Both sides run in turns in one process (memory: once each, in fresh processes); the ratio is the
median of the turns, the middle half of them beside it. Absolute figures are for orientation only.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.errors import InputError
from swin_dense.report import tables

if TYPE_CHECKING:
    from swin_dense.benchmarks.ratios import Case
    from swin_dense.benchmarks.tables import Table

WHAT = ("ops", "backbone", "memory", "growth")
OPTIONS = {"compiled": "compile", "batch": "batch"}  # what some tables take -> its option


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/benchmark.py", __doc__)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows that hold this text")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row (4)")
    parser.add_argument(
        "--shape",
        type=options.scale,
        default=(1216, 800),
        metavar="LONG,SHORT",
        help="of the image, in pixels (1216,800)",
    )
    parser.add_argument(
        "--batch",
        type=options.positive,
        metavar="N",
        help="backbone, training steps of memory: images at a time (1)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="backbone: also against torch.compile of ours, timm"
    )
    parser.add_argument(
        "--choose",
        action="store_true",
        help="ops: measure on this card which sizes of window attention SDPA computes faster than "
        "our kernel, and have later runs take it there",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


def _benchmark(asked: argparse.Namespace) -> None:
    from swin_dense.benchmarks.ratios import LeftOutError
    from swin_dense.benchmarks.tables import TABLES, machine
    from swin_dense.checkpoints import files
    from swin_dense.ops import extension

    if asked.what == "ops" and extension.MISSING:
        raise InputError(f"nothing to compare: {extension.describe()}.")
    _refuse_what_it_lacks(asked)
    if asked.choose:
        _choose(asked)
        return
    table, on = TABLES[asked.what], machine()
    chosen = _chosen(table, asked)
    print(
        f"{on['kernels']}; {on['device']}, {on['cpu']}, {on['threads']} threads, "
        f"torch {on['torch']}, load {on['load']:.1f}"
        + ("" if asked.what == "growth" else f", image {asked.shape[0]}x{asked.shape[1]}")
        + (f", {asked.batch} at a time" if asked.batch else ""),
        flush=True,
    )
    rows, left_out = [], dict[str, None]()
    for case in chosen:
        try:
            taken = case.measure(asked.seconds)
        except LeftOutError as error:
            left_out[str(error)] = None
            continue
        # The table comes at the end; long runs are watched, or broken off, by these lines.
        print(f"{case.name}, {case.against}: {taken.ratio:.2f}", file=sys.stderr, flush=True)
        rows.append(table.row(case, taken))
    print(tables.grid(table.header(), [table.cells(row) for row in rows]))
    print(*left_out, sep="\n", end="\n" * bool(left_out))
    if asked.json:
        content = {"what": asked.what, "shape": asked.shape, "seconds": asked.seconds}
        content |= {"batch": asked.batch or 1}
        content |= {"machine": on, "rows": rows, "left_out": list(left_out)}
        with files.replaced(Path(asked.json)) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def _refuse_what_it_lacks(asked: argparse.Namespace) -> None:
    from swin_dense.benchmarks.tables import TABLES

    for name, option in OPTIONS.items():
        takers = [what for what, table in TABLES.items() if name in table.takes]
        if getattr(asked, option) and asked.what not in takers:
            raise InputError(
                f"--{option}: {asked.what} has no rows about it, only {' and '.join(takers)}. "
                "Leave it out."
            )


def _choose(asked: argparse.Namespace) -> None:
    import torch

    from swin_dense.benchmarks import choose
    from swin_dense.ops import trust, verdicts

    if asked.what != "ops":
        raise InputError(f"--choose: only ops has a choice, not {asked.what}. Leave it out.")
    if "cuda" not in trust.extension.loaded() or not torch.cuda.is_available():
        raise InputError(
            "--choose: on a CPU our kernels are always taken, and no CUDA device with kernels is "
            f"here: {trust.describe()}."
        )
    device = torch.device("cuda", torch.cuda.current_device())
    print(
        f"window attention on {verdicts.card(device)}: how many times as fast as SDPA", flush=True
    )
    found = []
    for one in choose.measure(device, asked.seconds):
        found.append(one)
        print(f"{', '.join(one.size)}: {one.ratio:.2f}, {one.faster} is taken", flush=True)
    choose.keep(device, found)
    print(f"kept in {verdicts.path(device)}; remove it to have kernels everywhere again")


def _chosen(table: "Table", asked: argparse.Namespace) -> list["Case"]:
    """Return the rows asked for, by their name or their other side."""
    given = {"compiled": asked.compile, "batch": asked.batch or 1}
    labelled = table.labelled(asked.shape, **{name: given[name] for name in table.takes})
    chosen = [case for label, case in labelled.items() if asked.rows in label]
    if not chosen:
        raise InputError(
            f"--rows: no row of {asked.what} holds {asked.rows!r}. Give a part of one of these:\n  "
            + "\n  ".join(labelled)
        )
    return chosen


main = command(_benchmark, _parser())
