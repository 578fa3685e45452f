"""What a config may cost: steps, sizes, depth. And the two ways in which it is refused.

A config that would take for ever, or fill the memory, is refused long before it does.
"""

from collections.abc import Iterator
from typing import Any

STEPS = 400_000  # parts evaluated, and values copied, of a config with all its bases
ITEMS = 100_000  # values of a config, or of one list in it, counted at any depth
TEXT = 1_000_000  # characters of one text, and of one file
TEXTS = 4_000_000  # characters of all texts in one value
BITS = 4096  # of a whole number
NESTED = 100  # expressions within one another
DEEP = 50  # lists and dicts within one another
PADDING = 999  # the widest that a number or text is padded to
FILES = 200  # of a config: itself and its bases

DATA = "Configs are data: they are evaluated and never run. `trust_config` runs one as a program."

SCALARS = (type(None), bool, int, float, str)
ROWS = (list, tuple, set, frozenset)


class NotDataError(Exception):
    """A config holds what only a program does; the text says what was found."""


class MistakeError(Exception):
    """A config cannot be evaluated, as a program neither."""


class Budget:
    """Count what evaluating a config and its bases costs."""

    def __init__(self, steps: int = STEPS) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Take `steps` from what is left.

        Raises:
            MistakeError: nothing is left.
        """
        self.left -= steps
        if self.left < 0:
            raise MistakeError(f"it takes more than {STEPS} steps to evaluate, the limit")

    def measure(self, value: Any) -> int:
        """Return how many values are in a value, at any depth; shared ones count each time.

        Raises:
            MistakeError: it has too many or too deep, holds itself, or holds what is no data.
        """
        if type(value) in SCALARS:
            return 1
        count = characters = 0
        row: list[tuple[Any, int]] = [(value, 0)]
        while row:
            value, depth = row.pop()
            count += 1
            characters += len(value) if type(value) is str else 0
            if isinstance(value, dict):
                count_of_parts = 2 * len(value)
            else:
                count_of_parts = len(value) if type(value) in ROWS else 0
            if count + len(row) + count_of_parts > 2 * ITEMS or characters > TEXTS:
                raise MistakeError(
                    f"it holds more than {ITEMS} values or {TEXTS} characters, the limit"
                )
            if depth >= DEEP and count_of_parts:
                raise MistakeError(f"lists and dicts lie more than {DEEP} deep, the limit")
            row += ((part, depth + 1) for part in _parts(value))
        self.spend(count // 2)
        return count


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from dict.keys(value)
        yield from dict.values(value)
    elif type(value) in ROWS:
        yield from value
    elif type(value) not in (*SCALARS, range):
        raise MistakeError(f"it holds a {type(value).__name__}, which is no plain value")
