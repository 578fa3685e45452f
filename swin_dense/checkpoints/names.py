"""Tables of weight names that read aloud, and in both directions.

    "stages.{stage}.blocks.{block}.ffn.layers.1.{end}":  # their name
    "layers.{stage}.blocks.{block}.mlp.fc2.{end}"         # ours

{stage} {block}     a number, also as the other side counts it: {stage+1}, {stage-1}, {2*stage+1}
{end}               weight or bias
{any}               whatever follows
{last}              the number of the last stage
[q] [k] [v]         behind a name: the first, second or last third of its rows
[0] [1]             behind a name: the first or second of its two rows
"""

import functools
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, cat, stack, zeros_like

PARTS = ("[q]", "[k]", "[v]")
ROWS = ("[0]", "[1]")
WORDS = {"end": "weight|bias", "any": ".+"}
NUMBER = re.compile(r"(?:(\d+)\*)?([a-z]+)([+-]\d+)?")  # 2*stage+1

Values = dict[str, int | str]


class Template:
    """One side of a row of a table."""

    def __init__(self, text: str) -> None:
        # Odd pieces are what stood in braces.
        self._pieces = re.split(r"\{(.+?)\}", text)
        self._scales: dict[str, tuple[int, int]] = {}
        pattern = ""
        for odd, piece in enumerate(self._pieces):
            if odd % 2 == 0:
                pattern += re.escape(piece)
            elif piece in WORDS:
                pattern += f"(?P<{piece}>{WORDS[piece]})"
            else:
                number = NUMBER.fullmatch(piece)
                assert number is not None, text
                times, word, plus = number.groups()
                self._scales[word] = int(times or 1), int(plus or 0)
                pattern += rf"(?P<{word}>\d+)"
        self._pattern = re.compile(pattern)

    def read(self, name: str) -> Values | None:
        """Return what stands in the braces if `name` is of this form, else None."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        values: Values = dict(match.groupdict())
        for word, (times, plus) in self._scales.items():
            count, rest = divmod(int(match[word]) - plus, times)
            if rest or count < 0:
                return None
            values[word] = count
        return values

    def write(self, values: Mapping[str, int | str]) -> str:
        """Return the name with these values."""
        name = ""
        for odd, piece in enumerate(self._pieces):
            number = NUMBER.fullmatch(piece)
            if odd % 2 == 0:
                name += piece
            elif piece in WORDS or number is None:
                name += str(values[piece])
            else:
                times, plus = self._scales[number[2]]
                name += str(times * int(values[number[2]]) + plus)
        return name


template = functools.cache(Template)


def same(*names: str) -> dict[str, str]:
    """Return the table of names that both sides have."""
    return {name: name for name in names}


def under(theirs: str, table: Mapping[str, str], ours: str = "") -> dict[str, str]:
    """Return the table for names that stand behind `theirs` there and behind `ours` here."""
    return {theirs + name: ours + meaning for name, meaning in table.items()}


def first(table: Iterable[str], name: str) -> tuple[str, Values] | None:
    """Return the first row of `table` whose form `name` has, and what stands in its braces."""
    for row in table:
        values = template(row).read(name)
        if values is not None:
            return row, values
    return None


def split(state: Mapping[str, Tensor], table: Iterable[str]) -> dict[str, Tensor]:
    """Cut tensors where `table` speaks of [q], [k] and [v], or of [0] and [1]."""
    table = list(table)
    thirds, pairs = (
        {row[: -len("[q]")] for row in table if row.endswith(marks)} for marks in (PARTS, ROWS)
    )
    pieces: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if thirds and first(thirds, name) and tensor.dim() and len(tensor) % 3 == 0:
            pieces |= {name + p: t for p, t in zip(PARTS, tensor.chunk(3), strict=True)}
        elif pairs and first(pairs, name) and tensor.dim() and len(tensor) == 2:
            pieces |= {name + p: t for p, t in zip(ROWS, tensor, strict=True)}
        else:
            pieces[name] = tensor
    return pieces


def join(pieces: Mapping[str, Tensor], zeros: str = "") -> dict[str, Tensor]:
    """Put together what was cut; a part alone stays as it is, so that it is noticed.

    Args:
        zeros: a part that is all zeros where it does not come.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in pieces.items():
        whole = name[: -len("[q]")]
        thirds = {part: pieces.get(whole + part) for part in PARTS}
        if zeros and thirds[zeros] is None:
            thirds[zeros] = zeros_like(tensor)
        found = [t for t in thirds.values() if t is not None]
        pair = [pieces[whole + part] for part in ROWS if whole + part in pieces]
        if name.endswith(PARTS) and len(found) == 3:
            state[whole] = cat(found)
        elif name.endswith(ROWS) and len(pair) == 2:
            state[whole] = stack(pair)
        else:
            state[name] = tensor
    return state
