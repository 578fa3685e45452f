"""Speed and memory as ratios.

ops       our ops against plain torch, the usual path of window attention, SDPA, mmcv's functions
backbone  our Swin-T against that of mmdet, transformers and timm, where they are installed; and
          our version 2 against our version 1
memory    what a training step adds to the peak of a process, ours against mmdet's; and
          deformable attention against mmcv's
growth    our Swin-T at a large image against a small one

Both sides run in turns in one process (memory: once each, in fresh processes); the ratio is the
median of the turns, the middle half of them beside it. Absolute figures are for orientation only.
"""

import argparse
import functools
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swin_dense.benchmarks import backbone, memory, operators, ratios
from swin_dense.benchmarks.ratios import Case, LeftOutError, Pair
from swin_dense.checkpoints import files
from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.errors import InputError
from swin_dense.ops import extension
from swin_dense.report import tables


@dataclass(frozen=True)
class Column:
    """One figure of a row: its header, its name in the JSON file, and how it is computed."""

    header: str
    key: str
    value: Callable[[Pair], float | tuple[float, float]]


def _sides(names: tuple[str, str], unit: str, factor: float) -> tuple[Column, Column]:
    ours, theirs = (f"{name} {unit}" for name in names)
    return (
        Column(ours, f"ours_{unit}", lambda p: factor * statistics.median(p.ours)),
        Column(theirs, f"theirs_{unit}", lambda p: factor * statistics.median(p.theirs)),
    )


SPREAD = Column("middle half", "spread", lambda p: p.spread)
LINEAR = (backbone.SIDES[1] / backbone.SIDES[0]) ** 2
SPEED = (
    *_sides(("ours", "theirs"), "ms", 1000),
    Column("times as fast", "ratio", lambda p: p.ratio),
    SPREAD,
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "ops": SPEED,
    "backbone": SPEED,
    "memory": (
        *_sides(("ours", "theirs"), "MiB", 1),
        Column("theirs / ours", "ratio", lambda p: p.ratio),
        Column("ours / theirs", "share", lambda p: 1 / p.ratio),
    ),
    "growth": (
        *_sides(("small", "large"), "ms", 1000),
        Column(f"large / small ({LINEAR:.0f} is linear)", "ratio", lambda p: p.ratio),
        SPREAD,
        Column("for each pixel (1 is linear)", "per_pixel", lambda p: p.ratio / LINEAR),
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/benchmark.py", __doc__)
    parser.add_argument("what", choices=list(COLUMNS))
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
        "--compile", action="store_true", help="backbone: also against torch.compile of ours, timm"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


def _benchmark(asked: argparse.Namespace) -> None:
    if asked.what == "ops" and extension.MISSING:
        raise InputError(f"nothing to compare: {extension.describe()}.")
    if asked.compile and asked.what != "backbone":
        raise InputError(
            f"--compile: {asked.what} has no rows about it, only backbone. Leave it out."
        )
    chosen = _chosen(asked)
    machine = {**ratios.machine(), "kernels": extension.describe(), "load": os.getloadavg()[0]}
    print(
        f"{machine['kernels']}; {machine['device']}, {machine['cpu']}, {machine['threads']} "
        f"threads, torch {machine['torch']}, load {machine['load']:.1f}"
        + ("" if asked.what == "growth" else f", image {asked.shape[0]}x{asked.shape[1]}"),
        flush=True,
    )
    columns, rows, left_out = COLUMNS[asked.what], [], dict[str, None]()
    for case in chosen:
        try:
            taken = case.measure(asked.seconds)
        except LeftOutError as error:
            left_out[str(error)] = None
            continue
        # The table comes at the end; long runs are watched, or broken off, by these lines.
        print(f"{case.name}, {case.against}: {taken.ratio:.2f}", file=sys.stderr, flush=True)
        figures = {column.key: column.value(taken) for column in columns}
        rows.append(
            {"name": case.name, "against": case.against, **figures, "turns": len(taken.ours)}
        )
    header = ["", "against", *(column.header for column in columns)]
    print(tables.grid(header, [_cells(row, columns) for row in rows]))
    print(*left_out, sep="\n", end="\n" * bool(left_out))
    if asked.json:
        content = {"what": asked.what, "shape": asked.shape, "seconds": asked.seconds}
        content |= {"machine": machine, "rows": rows, "left_out": list(left_out)}
        with files.replaced(Path(asked.json)) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def _chosen(asked: argparse.Namespace) -> list[Case]:
    """The rows asked for, by their name or their other side."""
    cases: dict[str, Callable[..., list[Case]]] = {
        "ops": operators.cases,
        "backbone": functools.partial(backbone.cases, compiled=asked.compile),
        "memory": memory.cases,
        "growth": backbone.growth,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labelled = {f"{c.name}, {c.against}": c for c in cases[asked.what](device, asked.shape)}
    chosen = [case for label, case in labelled.items() if asked.rows in label]
    if not chosen:
        raise InputError(
            f"--rows: no row of {asked.what} holds {asked.rows!r}. Give a part of one of these:\n  "
            + "\n  ".join(labelled)
        )
    return chosen


def _cells(row: dict[str, Any], columns: tuple[Column, ...]) -> list[str]:
    values = [row[column.key] for column in columns]
    figures = [f"{v[0]:.2f} to {v[1]:.2f}" if isinstance(v, tuple) else f"{v:.2f}" for v in values]
    return [row["name"], row["against"], *figures]


main = command(_benchmark, _parser())
