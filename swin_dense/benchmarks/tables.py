"""Say what each table of the benchmarks measures, and which figures its rows show."""

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from swin_dense.benchmarks import backbone, memory, operators, ratios
from swin_dense.benchmarks.ratios import Case, Pair
from swin_dense.ops import trust


@dataclass(frozen=True)
class Column:
    """One figure of a row: its header, its name in the JSON file, and how it is computed."""

    header: str
    key: str
    value: Callable[[Pair], float | tuple[float, float]]


@dataclass(frozen=True)
class Table:
    """The columns of a table, and its rows.

    Attributes:
        cases: (device, size of the image as (long, short), some of `takes`) -> the rows, not
            measured yet.
        takes: "compiled" (compiled sides too, a flag), "batch" (number of images).
    """

    columns: tuple[Column, ...]
    cases: Callable[..., list[Case]]
    takes: tuple[str, ...] = ()

    def labelled(self, shape: tuple[int, int], **options: Any) -> dict[str, Case]:
        """Return the rows by their label, "name, other side", on a GPU if there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return {f"{c.name}, {c.against}": c for c in self.cases(device, shape, **options)}

    def row(self, case: Case, taken: Pair) -> dict[str, Any]:
        """Return the figures of a measured row by their keys."""
        figures = {column.key: column.value(taken) for column in self.columns}
        return {"name": case.name, "against": case.against, **figures, "turns": len(taken.ours)}

    def header(self) -> list[str]:
        """Return the titles above the cells."""
        return ["", "against", *(column.header for column in self.columns)]

    def cells(self, row: dict[str, Any]) -> list[str]:
        """Return a row as text, two digits behind the point."""
        found = [row[column.key] for column in self.columns]
        texts = [f"{v[0]:.2f} to {v[1]:.2f}" if isinstance(v, tuple) else f"{v:.2f}" for v in found]
        return [row["name"], row["against"], *texts]


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, with which kernels, beside how much else."""
    return {**ratios.machine(), "kernels": trust.describe(), "load": os.getloadavg()[0]}


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
MEMORY = (
    *_sides(("ours", "theirs"), "MiB", 1),
    Column("theirs / ours", "ratio", lambda p: p.ratio),
    Column("ours / theirs", "share", lambda p: 1 / p.ratio),
)
GROWTH = (
    *_sides(("small", "large"), "ms", 1000),
    Column(f"large / small ({LINEAR:.0f} is linear)", "ratio", lambda p: p.ratio),
    SPREAD,
    Column("for each pixel (1 is linear)", "per_pixel", lambda p: p.ratio / LINEAR),
)
TABLES = {
    "ops": Table(SPEED, operators.cases),
    "backbone": Table(SPEED, backbone.cases, ("compiled", "batch")),
    "memory": Table(MEMORY, memory.cases, ("batch",)),
    "growth": Table(GROWTH, backbone.growth),
}
