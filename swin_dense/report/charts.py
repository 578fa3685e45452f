"""Draw curves, histograms and reliability diagrams as SVG inside a page.

Colours come from the page (`page.STYLE`), so that one drawing serves light and dark.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swin_dense.report.page import Html, text

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 44  # of the drawing around its axes
DIVISIONS = 5


class Axis(NamedTuple):
    """What an axis shows, and from where to where."""

    name: str
    low: float = 0.0
    high: float = 1.0


class Curve(NamedTuple):
    """A line: its name and its points, both (N,)."""

    name: str
    x: np.ndarray
    y: np.ndarray


def curves(label: str, across: Axis, up: Axis, lines: Sequence[Curve], ideal: bool = False) -> Html:
    """Draw lines over two axes, each in the next colour of the page.

    Args:
        label: what the drawing shows, for those who hear it.
        ideal: draw the diagonal, too.
    """
    parts = [_axes(across, up)]
    if ideal:
        parts.append(_diagonal())
    for i, line in enumerate(lines):
        x, y = _x(across, line.x), _y(up, line.y)
        points = " ".join(
            f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True) if b == b
        )
        parts.append(
            f'<polyline fill="none" stroke="var(--c{i % 6})" stroke-width="2" points="{points}">'
            f"<title>{text(line.name)}</title></polyline>"
        )
        if points.count(",") == 1:  # a line through one point cannot be seen
            at = 'cx="{}" cy="{}"'.format(*points.split(","))
            parts.append(f'<circle {at} r="3" fill="var(--c{i % 6})"/>')
    return _svg(label, parts)


def stacks(label: str, across: Axis, up: str, edges: np.ndarray, counts: np.ndarray) -> Html:
    """Draw a histogram whose bars are stacked, the first row lowest.

    Args:
        up: what is counted.
        edges: (B + 1,) between the bars.
        counts: (S, B).
    """
    height = round_up(max(DIVISIONS, float(counts.sum(0).max(initial=0))))
    axis = Axis(up, 0, height)
    parts = [_axes(across, axis)]
    sides = _x(across, edges)
    base = np.zeros(counts.shape[1])
    for i, row in enumerate(counts):
        for j, count in enumerate(row.tolist()):
            if count:
                parts.append(_bar(sides, j, axis, base[j], base[j] + count, i, f"{count:g}"))
        base = base + row
    return _svg(label, parts)


def reliability(
    label: str, edges: np.ndarray, shares: np.ndarray, said: np.ndarray, counts: np.ndarray
) -> Html:
    """Draw how often detections of a score are right, beside the scores themselves.

    Args:
        edges: (B + 1,) of the scores.
        shares: (B,) right ones among the detections of each bar.
        said: (B,) mean score in it.
        counts: (B,) detections in it; a bar of none is not drawn.
    """
    across, up = Axis("score"), Axis("share that is right")
    sides = _x(across, edges)
    parts = [_axes(across, up)]
    for j in np.flatnonzero(counts).tolist():
        told = f"score {said[j]:.2f}, {shares[j]:.0%} right, {counts[j]:.0f} detections"
        parts.append(_bar(sides, j, up, 0, shares[j], 0, told))
        at = f'cx="{_x(across, said[j]):.1f}" cy="{_y(up, said[j]):.1f}"'
        parts.append(f'<circle {at} r="3" fill="var(--c1)"/>')
    parts.append(_diagonal())
    return _svg(label, parts)


def _svg(label: str, parts: Sequence[str]) -> Html:
    return Html(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(label)}">'
        + "".join(parts)
        + "</svg>"
    )


def _axes(across: Axis, up: Axis) -> str:
    """Draw a grid with numbers, and the names of both axes."""
    parts = []
    for i in range(DIVISIONS + 1):
        x = across.low + (across.high - across.low) * i / DIVISIONS
        y = up.low + (up.high - up.low) * i / DIVISIONS
        a, b = _x(across, x), _y(up, y)
        parts.append(f'<path class="grid" d="M{a:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<path class="grid" d="M{LEFT} {b:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{a:.1f}" y="{HEIGHT - 27}" text-anchor="middle">{_short(x)}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{b + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{text(across.name)}</text>'
        f'<text transform="translate(13 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{text(up.name)}</text>'
    )
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def round_up(value: float) -> float:
    """Return a number not below this one whose fifths are round."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(
        power * next(step for step in (1, 1.5, 2, 3, 4, 5, 7.5, 10) if step * power >= value)
    )


def _diagonal() -> str:
    return (
        f'<path class="ideal" fill="none" d="M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {TOP}">'
        "<title>ideal</title></path>"
    )


def _bar(
    sides: np.ndarray, place: int, up: Axis, low: float, high: float, colour: int, told: str
) -> str:
    left, right = sides[place] + 0.5, sides[place + 1] - 0.5
    top, bottom = _y(up, high), _y(up, low)
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left):.1f}" '
        f'height="{bottom - top:.1f}" fill="var(--c{colour % 6})">'
        f"<title>{text(told)}</title></rect>"
    )


def _x(axis: Axis, value):  # type: ignore[no-untyped-def]
    return LEFT + (value - axis.low) / (axis.high - axis.low) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value):  # type: ignore[no-untyped-def]
    share = (value - axis.low) / (axis.high - axis.low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
