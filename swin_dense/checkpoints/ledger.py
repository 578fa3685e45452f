"""Account for a file's weights in a model, number by number: for the eye and for the record."""

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from swin_dense.checkpoints.resizing import Resized
from swin_dense.errors import InputError, nearest

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# Why weights stay at random. The first two are losses, the others are as they must be.
ABSENT = "not in the file"
RESHAPED = "another shape in the file"
CLASSES = "of other classes in the file"
NORMS = "norms of the maps, which classification files lack"
COUNTERS = "counters of batch norms, which no result depends on"  # they stay at 0
ALLOWED = "allowed by name"
LOSSES = (ABSENT, RESHAPED)

SHOWN = 4  # groups of names in a line of the short form


@dataclass(frozen=True)
class Ledger:
    """One load of weights. Every tensor of the model and of the file is in it once."""

    source: str
    sha256: str
    layout: str
    part: str  # "model" or "backbone"
    loaded: Shapes
    resized: tuple[Resized, ...]
    random: dict[str, Shapes]  # why -> names of the model
    reshaped: Shapes  # name of the model -> shape in the file, where it is another
    unused: dict[str, str]  # name in the file -> why
    suspicious: tuple[str, ...] = ()
    mismatch: str = ""  # that file and model are of two architectures, in words
    licence: str = ""  # under which their authors publish the weights, in words

    @property
    def lost(self) -> Shapes:
        """Give what stays at random though it should not."""
        return {n: s for why in LOSSES for n, s in self.random.get(why, {}).items()}

    @property
    def share(self) -> float:
        """Give the part that came of what should: the lower of numbers and of tensors, 0 to 1."""
        numbers = _part(count(self.loaded), count(self.lost))
        return min(numbers, _part(len(self.loaded), len(self.lost)))

    def lines(self) -> list[str]:
        """Give a few lines for the console."""
        every = self.loaded | {n: s for names in self.random.values() for n, s in names.items()}
        lines = [
            f"weights: {self.source} (sha256 {self.sha256[:12]})",
            f"  found: {self.layout}",
            *([f"  licence: {self.licence}"] if self.licence else []),
            f"  loaded: {len(self.loaded)} of {len(every)} tensors, "
            f"{_percent(_part(count(self.loaded), count(every) - count(self.loaded)))} of the "
            f"{self.part}'s numbers" + self._about_resizing(),
        ]
        for why, names in self.random.items():
            if why != COUNTERS:
                lines.append(f"  at random, {why}: {_some(grouped(names))}")
        if self.unused:
            kinds: dict[str, int] = {}
            for why in self.unused.values():
                kinds[why] = kinds.get(why, 0) + 1
            lines.append(
                f"  unused: {len(self.unused)} of the file's tensors "
                f"({_some([f'{n} {why}' for why, n in kinds.items()], ';')})"
            )
        return lines + self._remarks()

    def comparison(self) -> list[str]:
        """Give every difference between file and model, equal names of all layers in one line."""
        lines = self.lines()[: 3 + bool(self.licence)]
        for why, names in self.random.items():
            state = "at 0" if why == COUNTERS else "at random"
            lines.append(f"  {state}, {why} ({len(names)}):")
            if why == RESHAPED:
                same: dict[tuple[str, Shape, Shape], list[str]] = {}
                for name, shape in names.items():
                    key = (_starred(name), shape, self.reshaped[name])
                    same.setdefault(key, []).append(name)
                for (_, ours, theirs), found in same.items():
                    many = f" ({len(found)} tensors)" if len(found) > 1 else ""
                    lines.append(f"    {_label(found)}: {ours} in the model, {theirs} in it{many}")
            else:
                lines += [f"    {group}" for group in grouped(names)]
        for why in dict.fromkeys(self.unused.values()):
            found = [name for name, reason in self.unused.items() if reason == why]
            lines.append(f"  unused, {why} ({len(found)}):")
            lines += [f"    {group}" for group in grouped(dict.fromkeys(found))]
        return lines + self._remarks()

    def require(self, share: float, advice: str) -> None:
        """Refuse what brings less than `share` of the weights that should come.

        Raises:
            InputError: with the whole comparison, or with the two architectures if they differ.
        """
        if self.share < share:
            if self.mismatch:
                raise InputError(f"checkpoint: {self.mismatch}")
            text = "\n".join(self.comparison())
            raise InputError(
                f"checkpoint: {self.source} does not fit this {self.part}: {share:.0%} of its "
                f"tensors and numbers are needed, {_percent(self.share)} are there. Whole "
                f"comparison:\n{text}\n{advice}"
            )

    def record(self) -> dict[str, Any]:
        """Give all of it, as values that JSON can hold."""
        return {
            "file": self.source,
            "sha256": self.sha256,
            "layout": self.layout,
            "licence": self.licence,
            "part": self.part,
            "share": round(self.share, 6),
            "loaded": {"tensors": len(self.loaded), "numbers": count(self.loaded)},
            "resized": [
                {"name": r.name, "from": list(r.old), "to": list(r.new), "how": r.how}
                for r in self.resized
            ],
            "random": {
                why: {
                    name: {"shape": list(shape), "numbers": prod(shape)}
                    | ({"in_file": list(self.reshaped[name])} if name in self.reshaped else {})
                    for name, shape in names.items()
                }
                for why, names in self.random.items()
            },
            "unused": self.unused,
            "suspicious": list(self.suspicious),
        }

    def _remarks(self) -> list[str]:
        other = [f"  another architecture: {self.mismatch}"] if self.mismatch else []
        return other + [f"  suspicious: {sign}" for sign in self.suspicious]

    def _about_resizing(self) -> str:
        if not self.resized:
            return ""
        kinds = dict.fromkeys(r.how for r in self.resized)
        return f"; {len(self.resized)} of them resized ({_some(list(kinds), ';')})"


def allowed(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the names that a pattern speaks of: "neck", "roi_head.*", "*.bias".

    A backbone's names may be written with and without the word before them.
    """
    names, patterns = list(names), list(patterns)
    before = "" if any(name.startswith("backbone.") for name in names) else "backbone."
    return {
        name
        for name in names
        for written in (name, before + name, name.removeprefix("backbone."))
        if any(_speaks_of(pattern, written) for pattern in patterns)
    }


def require_meaning(patterns: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a pattern of `allow_missing` that speaks of no weight of the model.

    Raises:
        InputError: one does not.
    """
    names = list(names)
    for pattern in patterns:
        if not allowed(names, [pattern]):
            known = {".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)}
            raise InputError(
                f"`allow_missing` {pattern}: no weight of the model is called so."
                f"{nearest(pattern, sorted(known))} Give the start of a name, such as neck or "
                "roi_head.bbox_head, or a pattern such as '*.norm3.*'."
            )


def _speaks_of(pattern: str, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in (pattern, f"{pattern}.*"))


def count(shapes: Mapping[str, Shape]) -> int:
    """Return the numbers in all tensors of these shapes."""
    return sum(map(prod, shapes.values()))


def grouped(names: Mapping[str, Shape | None]) -> list[str]:
    """Return a line for each layer; layers that differ in numbers only share one.

    Such as "layers.2.blocks.[0-5].norm[12] (24 tensors, 4,608 numbers)", to be read as a pattern.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_starred(_layer(name)), []).append(name)
    lines = []
    for members in groups.values():
        label = members[0] if len(members) == 1 else _label([_layer(n) for n in members])
        sizes = [names[name] for name in members]
        numbers = sum(prod(size) for size in sizes if size is not None)
        many = f"{len(members)} tensors, " if len(members) > 1 else ""
        words = f"{numbers:,} number" + "s" * (numbers != 1)
        about = many + words if None not in sizes else many.rstrip(", ")
        lines.append(f"{label} ({about})" if about else label)
    return lines


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _starred(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _label(names: list[str]) -> str:
    """Return one pattern for names that differ in their numbers only."""
    columns = zip(*(re.split(r"(\d+)", name) for name in names), strict=True)
    return "".join(_digits(sorted(set(column))) for column in columns)


def _digits(values: list[str]) -> str:
    if len(values) == 1:
        return values[0]
    if any(len(value) > 1 for value in values):
        return "*"
    first, last = values[0], values[-1]
    in_a_row = len(values) > 2 and int(last) - int(first) == len(values) - 1
    return f"[{first}-{last}]" if in_a_row else f"[{''.join(values)}]"


def _part(there: int, lacking: int) -> float:
    return there / (there + lacking) if there + lacking else 1.0


def _percent(part: float) -> str:
    """Rounded down, so that 100 % means all of it."""
    return f"{int(part * 1000) / 10:g} %" if part < 1 else "100 %"


def _some(parts: list[str], comma: str = ",") -> str:
    more = len(parts) - SHOWN
    shown = f"{comma} ".join(parts[:SHOWN])
    return shown + (f"{comma} and {more} more" if more > 0 else "")
