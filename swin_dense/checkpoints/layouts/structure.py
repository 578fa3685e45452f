"""Say what a set of names and shapes lacks to be a whole backbone of an architecture."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swin_dense.checkpoints.architecture import Architecture, Rows
from swin_dense.checkpoints.names import first, template

Shape = tuple[int, ...]
AXIS = re.compile(r"(?P<times>\d*)(?P<letter>[A-Za-z]?)")
ANY = "_"  # a size that shares nothing


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs."""

    row: str  # with its mark
    stage: int
    form: str  # shape in letters

    @property
    def mark(self) -> str:
        """Give "?" if a model may lack it, "*" if each place may, else nothing."""
        return self.row[-1] if self.row[-1] in "?*" else ""


def problems(shapes: Mapping[str, Shape], architecture: Architecture) -> list[str]:
    """Say what is missing, too much or of a shape that does not go with the rest."""
    depths = _depths(shapes, architecture.rows)
    if not depths:
        return ["there are no blocks"]
    places = _places(depths, architecture.rows)
    missing = [n for n, place in places.items() if not place.mark and n not in shapes]
    return (
        [f"{name} is missing" for name in missing]
        + _halves(shapes, places)
        + [f"{name} has no place in this model" for name in shapes if name not in places]
        + _misfits(shapes, places, architecture)
    )


def _depths(shapes: Iterable[str], rows: Rows) -> list[int]:
    """Count the blocks of each stage by the highest number; at least one where a stage begins."""
    found: dict[int, int] = {}
    blocks, entrances = _unmarked(rows.block), _unmarked(rows.entrance)
    for name in shapes:
        if block := first(blocks, name):
            stage, number = int(block[1].get("stage", 0)), int(block[1]["block"])
            found[stage] = max(found.get(stage, 0), number + 1)
        elif entered := first(entrances, name):
            found.setdefault(int(entered[1]["stage"]), 1)
    return [found.get(stage, 1) for stage in range(max(found, default=-1) + 1)]


def _unmarked(group: Iterable[str]) -> list[str]:
    return [row.rstrip("?*") for row in group]


def _places(depths: Sequence[int], rows: Rows) -> dict[str, Place]:
    """Give the name of each tensor of a backbone of these depths -> its place."""
    places: dict[str, Place] = {}

    def put(group: Mapping[str, str], stage: int, block: int = 0) -> None:
        for row, form in group.items():
            name = template(row.rstrip("?*")).write({"stage": stage, "block": block})
            places.setdefault(name, Place(row, stage, form))

    put(rows.stem, 0)
    for stage, depth in enumerate(depths):
        if stage > 0:
            put(rows.entrance, stage)
        for block in range(depth):
            put(rows.block, stage, block)
        put(rows.output, stage)
    return places


def _halves(shapes: Mapping[str, Shape], places: Mapping[str, Place]) -> list[str]:
    """Say what is there in part only: the bias of a norm without its weight, or of some blocks."""
    seen: dict[str, list[str]] = {}
    for name, place in places.items():
        if place.mark:
            group = name if place.mark == "*" else place.row
            seen.setdefault(group.rpartition(".")[0] or group, []).append(name)
    return [
        f"{next(n for n in names if n not in shapes)} is missing, though others of its kind come"
        for names in seen.values()
        if 0 < sum(n in shapes for n in names) < len(names)
    ]


def _misfits(
    shapes: Mapping[str, Shape], places: Mapping[str, Place], architecture: Architecture
) -> list[str]:
    """Say which shapes do not agree with the rest of their stage."""
    sizes: dict[tuple[int, str], int] = {}
    found = []
    for name, place in places.items():
        if name not in shapes:
            continue
        if architecture.width and (0, "C") in sizes:
            sizes[place.stage, "C"] = architecture.width(sizes[0, "C"], place.stage)
        want = _fill(place, shapes[name], sizes)
        if want != shapes[name]:
            text = want if all(isinstance(size, int) for size in want) else _in_words(want)
            found.append(f"{name} is {shapes[name]} where {text} belongs")
    return found + list(architecture.check(sizes))


def _fill(place: Place, shape: Shape, sizes: dict[tuple[int, str], int]) -> tuple[int | str, ...]:
    """Give the shape that belongs there; a letter not met before takes what stands in `shape`.

    Letters that stand for no number yet remain if `shape` has another number of axes.
    """
    axes = place.form.split()
    filled: list[int | str] = []
    for number, axis in enumerate(axes):
        if axis == ANY:
            filled.append(shape[number] if len(shape) == len(axes) else axis)
            continue
        match = AXIS.fullmatch(axis)
        if match is None:
            raise ValueError(f"{place.row}: {axis!r} is no size, write such as C, 4C or 2")
        times, letter = int(match["times"] or 1), match["letter"]
        stage = place.stage - letter.islower()
        if letter and len(shape) == len(axes):
            sizes.setdefault((stage, letter.upper()), shape[number] // times)
        size = sizes.get((stage, letter.upper())) if letter else 1
        filled.append(axis if size is None else times * size)
    return tuple(filled)


def _in_words(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"
