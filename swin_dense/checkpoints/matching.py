"""Compare a checkpoint's names and shapes with a model's, before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from swin_dense.errors import InputError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Match:
    """What a checkpoint has for a model. Sizes count numbers, not tensors."""

    fitting: Shapes
    missing: Shapes  # in the model only
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # model's shape, file's shape
    unused: Shapes = field(default_factory=dict)  # in the file only

    @property
    def share(self) -> float:
        """Part of the model's numbers that the file provides, 0 to 1."""
        found = _count(self.fitting)
        whole = found + _count(self.missing) + sum(prod(ours) for ours, _ in self.reshaped.values())
        return found / whole if whole else 1.0

    def describe(self) -> str:
        """One line, and one more for each kind of difference."""
        lines = [f"{len(self.fitting)} tensors fit, {self.share:.1%} of the model's numbers"]
        if self.reshaped:
            shown = [
                f"{n} {ours} in the model, {theirs} in the file"
                for n, (ours, theirs) in self.reshaped.items()
            ]
            lines.append(f"other shape ({len(shown)}): {_some(shown)}")
        if self.missing:
            lines.append(f"not in the file ({len(self.missing)}): {_some(list(self.missing))}")
        if self.unused:
            lines.append(f"not in the model ({len(self.unused)}): {_some(list(self.unused))}")
        return "\n  ".join(lines)


def compare(model: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Match:
    """Match two state dicts by name and shape; a "module." before the file's names is dropped."""
    theirs = {name.removeprefix("module."): tuple(t.shape) for name, t in state.items()}
    ours = {name: tuple(t.shape) for name, t in model.items()}
    return Match(
        fitting={n: s for n, s in ours.items() if theirs.get(n) == s},
        missing={n: s for n, s in ours.items() if n not in theirs},
        reshaped={n: (s, theirs[n]) for n, s in ours.items() if n in theirs and theirs[n] != s},
        unused={n: s for n, s in theirs.items() if n not in ours},
    )


def require(match: Match, path: str, share: float, advice: str) -> None:
    """Refuse a checkpoint that provides less than `share` of the model.

    Raises:
        InputError: with the whole comparison.
    """
    if match.share < share:
        raise InputError(
            f"checkpoint: {path} does not fit this model, {share:.0%} of its weights are "
            f"needed:\n  {match.describe()}\n{advice}"
        )


def _count(shapes: Shapes) -> int:
    return sum(map(prod, shapes.values()))


def _some(names: list[str], count: int = 4) -> str:
    more = len(names) - count
    return ", ".join(names[:count]) + (f", and {more} more" if more > 0 else "")
