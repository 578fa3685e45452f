"""The course of a training: loss, rate, metrics and times, as a picture and as a part of a page.

Read from the `scalars.json` that mmengine writes beside its log, one JSON object to a line.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swin_dense.report import charts, page

PICTURE, PAGE = "curve.png", "training.html"
SCALARS = "*/vis_data/scalars.json"
MOST = 6  # lines in one chart
TIMES = {"time": "iteration", "data_time": "waiting for data"}  # seconds
COUNTS = {"step", "iter", "epoch", "memory", "lr", "base_lr", "grad_norm", *TIMES}


class Panel(NamedTuple):
    """One chart: what it shows, the name of its values, and name -> (iterations, values)."""

    title: str
    unit: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]


def read(folder: Path) -> list[dict[str, float]]:
    """Return all rows of the runs in a folder, the earliest first; empty where there are none.

    A run that resumes another one replaces what that one logged from there on.
    """
    rows: list[dict[str, float]] = []
    for path in sorted(folder.glob(SCALARS)):
        own = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a run that was stopped while writing it
                continue
            if isinstance(row, dict) and "step" in row:
                own.append(row)
        first = min((row["iter"] for row in own if "iter" in row), default=None)
        if first is not None:
            rows = [row for row in rows if row.get("iter", row["step"]) < first]
        rows += own
    return _by_iteration(rows)


def _by_iteration(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Give each row its iteration: an evaluation of a run by epochs knows only its epoch."""
    last: dict[int, float] = {}
    for row in rows:
        if "epoch" in row and "iter" in row:
            last[int(row["epoch"])] = row["iter"]
    for row in rows:
        row.setdefault("iter", last.get(int(row["step"]), row["step"]) if last else row["step"])
    return rows


def panels(rows: Sequence[Mapping[str, float]]) -> list[Panel]:
    """Sort what was logged into charts; one without values is left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    losses = [name for name in names if "loss" in name.rpartition(".")[2]]
    losses.sort(key=lambda name: name != "loss")
    metrics = [
        name
        for name in names
        if name not in COUNTS and name not in losses and any(_evaluates(row, name) for row in rows)
    ]
    found = [
        Panel("Loss", "loss", _lines(rows, losses[:MOST])),
        Panel("Learning rate", "rate", _lines(rows, ["lr"])),
        Panel("Evaluation", "value", _lines(rows, metrics[:MOST])),
        Panel("Time of an iteration", "seconds", _lines(rows, list(TIMES), training=True)),
    ]
    return [panel for panel in found if panel.lines]


def _evaluates(row: Mapping[str, float], name: str) -> bool:
    return name in row and "lr" not in row


def _lines(
    rows: Sequence[Mapping[str, float]], names: Sequence[str], training: bool = False
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    lines = {}
    for name in names:
        points = [
            (row["iter"], row[name])
            for row in rows
            if isinstance(row.get(name), int | float)
            and math.isfinite(row[name])
            and row[name] != -1  # COCO's way to say that there is nothing to average
            and not (training and "lr" not in row)
        ]
        if points:
            lines[TIMES.get(name, name)] = tuple(np.array(points, float).T)
    return lines  # type: ignore[return-value]


def section(rows: Sequence[Mapping[str, float]]) -> page.Html:
    """Draw the charts side by side, for a page."""
    drawn = []
    for panel in panels(rows):
        ends = [float(x.max()) for x, _ in panel.lines.values()]
        low = min(0.0, *(float(y.min()) for _, y in panel.lines.values()))
        high = max(float(y.max()) for _, y in panel.lines.values())
        lines = [charts.Curve(name, x, y) for name, (x, y) in panel.lines.items()]
        drawn.append(
            page.figure(
                charts.curves(
                    f"{panel.title} over iterations",
                    charts.Axis("iteration", 0.0, max(1.0, *ends)),
                    charts.Axis(panel.unit, low, charts.round_up(high - low) + low),
                    lines,
                ),
                panel.title,
                list(panel.lines),
            )
        )
    if not drawn:
        return page.paragraph("Nothing was logged yet.")
    return page.figures(*drawn)


def write(folder: Path, title: str) -> Path:
    """Write the picture and the page of a training into its folder; return the page."""
    rows = read(folder)
    draw(rows, folder / PICTURE)
    last = max((row["iter"] for row in rows), default=0)
    lead = page.paragraph(f"{last:.0f} iterations", soft=True)
    text = page.document(f"{title}: training", [("Course", section(rows))], lead)
    (folder / PAGE).write_text(text, "utf-8")
    return folder / PAGE


def draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the charts into a PNG; nothing is written where nothing was logged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels(rows)
    if not shown:
        return
    figure = Figure(figsize=(11, 3.6 * math.ceil(len(shown) / 2)), layout="constrained")
    for place, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(math.ceil(len(shown) / 2), 2, place)
        for name, (x, y) in panel.lines.items():
            axes.plot(x, y, label=name, marker="o" if len(x) < 3 else None)
        axes.set(title=panel.title, xlabel="iteration", ylabel=panel.unit)
        axes.set_ylim(bottom=min(0.0, *(float(y.min()) for _, y in panel.lines.values())))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))
