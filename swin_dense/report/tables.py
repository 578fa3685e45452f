"""Evaluation numbers as text tables."""

from collections.abc import Mapping

FRACTION_FAMILIES = (
    "bbox",
    "segm",
    "boundary",
    "proposal",
)  # COCO's numbers lie between 0 and 1, others are percent
PANOPTIC = ("PQ", "SQ", "RQ")
PANOPTIC_GROUPS = {"": "all", "_th": "things", "_st": "stuff"}  # suffix of a number -> column


def overall(numbers: Mapping[str, float]) -> str:
    """Return a table with a column for each kind of evaluation ("bbox_AP": column bbox, row AP)."""
    if "PQ" in numbers:
        return grid(
            ["", *PANOPTIC_GROUPS.values()],
            [[n, *(_percent(numbers.get(n + g)) for g in PANOPTIC_GROUPS)] for n in PANOPTIC],
        )
    families = [f for f in FRACTION_FAMILIES if any(n.startswith(f + "_") for n in numbers)]
    if not families:
        return grid(["", "percent"], [[name, _percent(v)] for name, v in numbers.items()])
    rows = dict.fromkeys(
        n.removeprefix(f + "_") for n in numbers for f in families if n.startswith(f)
    )
    return grid(
        ["", *families],
        [[row, *(_fraction(numbers.get(f"{f}_{row}")) for f in families)] for row in rows],
    )


def by_class(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table with a row for each class and a column for each number.

    Of the many numbers of boxes and masks it shows the AP alone; metrics.json has the others.
    """
    columns = list(dict.fromkeys(c for row in per_class.values() for c in row))
    columns = [c for c in columns if not c.startswith(FRACTION_FAMILIES) or c.endswith("_AP")]
    show = _fraction if any(c.startswith(FRACTION_FAMILIES) for c in columns) else _percent
    return grid(
        ["class", *columns],
        [[name, *(show(row.get(c)) for c in columns)] for name, row in per_class.items()],
    )


def grid(header: list[str], rows: list[list[str]]) -> str:
    """Columns padded to their widest cell, the first to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _fraction(value: float | None) -> str:
    """-1 is COCO's way to say that nothing of the kind exists."""
    return "-" if value is None or value != value or value < 0 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"
