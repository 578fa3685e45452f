"""The model zoo as a page: rows of numbers, ours beside the authors', as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARAMETERS_AGREE = 0.01  # share by which a count may differ from the authors', which are rounded
FLOPS_AGREE = 0.03
COLUMNS = (
    "config",
    "model",
    "starts from",
    "parameters (M)",
    "theirs",
    "FLOPs (G)",
    "theirs",
    "result (theirs)",
    "result (ours)",
    "weights (theirs)",
)


@dataclass(frozen=True)
class Authors:
    """What the authors of a model state.

    Attributes:
        source: where they state it.
        results: name of a number -> the number, in percent.
        parameters: millions.
        flops: multiply-adds, in thousand millions.
        weights: address of their trained model.
        licence: of those weights.
        differs: why our counts are others, with the arithmetic.
        note: anything else a reader should know.
    """

    source: str
    results: Mapping[str, float] = field(default_factory=dict)
    parameters: float | None = None
    flops: float | None = None
    weights: str = ""
    licence: str = ""
    differs: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One config.

    Attributes:
        name: of the config, without ".py".
        group: title of the table it belongs to.
        model: what it is, in words.
        start: what its backbone was trained on before.
        parameters: how many.
        flops: multiply-adds of one image.
        counted: size of that image in words, where it is not the usual one.
        results: ours, name of a number -> the number, in percent; of a log.
    """

    name: str
    group: str
    model: str
    start: str
    parameters: int
    flops: int
    counted: str
    results: Mapping[str, float]
    authors: Authors | None


def problems(rows: Sequence[Row]) -> list[str]:
    """Counts that are not the authors' and say nothing of it, or say so and are."""
    found = []
    for row in rows:
        if row.authors is None:
            continue
        apart = [
            f"{ours:.2f} {what} for {theirs:g}"
            for ours, theirs, share, what in (
                (row.parameters / 1e6, row.authors.parameters, PARAMETERS_AGREE, "M parameters"),
                (row.flops / 1e9, row.authors.flops, FLOPS_AGREE, "G FLOPs"),
            )
            if theirs is not None and abs(ours - theirs) > share * theirs
        ]
        if apart and not row.authors.differs:
            found.append(f"{row.name}: {', '.join(apart)}, and `differs` does not say why")
        if row.authors.differs and not apart:
            found.append(f"{row.name}: the counts agree, but `differs` speaks of a difference")
        if row.authors.weights and not row.authors.licence:
            found.append(f"{row.name}: the weights have no licence")
    return found


def page(rows: Sequence[Row], head: str) -> str:
    """Markdown: `head`, then a table for each group, then remarks and where numbers are from.

    Groups come in the order in which they first occur.
    """
    parts = [head.rstrip()]
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        parts.append(f"## {group}\n\n{_table(members)}")
    remarks: dict[str, list[str]] = {}
    for row in rows:
        for text in (row.authors.differs, row.authors.note) if row.authors else ():
            if text:
                remarks.setdefault(text, []).append(f"`{row.name}`")
    lines = [f"- {', '.join(names)}: {text}" for text, names in remarks.items()]
    parts.append("## Remarks\n\n" + "\n".join(lines))
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row.authors:
            sources.setdefault(row.authors.source, []).append(f"`{row.name}`")
    lines = [f"- {source}: {', '.join(names)}" for source, names in sources.items()]
    parts.append("## Where their numbers are from\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> list[str]:
    theirs = row.authors or Authors("")
    return [
        f"[{row.name}](../configs/{row.name}.py)",
        row.model,
        row.start or "-",
        f"{row.parameters / 1e6:.1f}",
        _plain(theirs.parameters),
        f"{row.flops / 1e9:.{0 if row.flops >= 1e10 else 1}f}"
        + (f" ({row.counted})" if row.counted else ""),
        _plain(theirs.flops),
        _results(theirs.results),
        _results(row.results),
        f"[{theirs.licence}]({theirs.weights})" if theirs.weights else "-",
    ]


def _plain(number: float | None) -> str:
    return "-" if number is None else f"{number:g}"


def _results(results: Mapping[str, float]) -> str:
    return ", ".join(f"{round(value, 2)} {name}" for name, value in results.items()) or "-"
