"""Mistakes in what a user gave: a path, a name, a file, a config.

The text of such an error is the whole message: what came, where, what the rule is, what to do
next. The commands print it without a traceback and end with status 2; every other exception is
taken for a fault of ours and keeps its traceback.
"""

import difflib
import signal
from collections.abc import Iterable


class InputError(ValueError):
    """A value, name or file content the user can mend.

    Attributes:
        iterations: that a training had made when it ended so; None before one began.
    """

    iterations: int | None = None


class MissingInputError(InputError, FileNotFoundError):
    """A path the user gave or named that is not there."""

    def __str__(self) -> str:  # OSError would format its arguments as errno and file name
        return str(self.args[0]) if self.args else ""


class StoppedError(KeyboardInterrupt):
    """A signal that asks this process to end; what is half done is cleared away, as for Ctrl-C.

    Attributes:
        signal: that asked.
        saved: what was written so that the work can go on, a part of a sentence; "" if nothing.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)
        self.saved = saved


def extra_of_ours(name: str) -> str:
    """Return the sentence that says how an extra of this project is installed."""
    return f"It is an extra of this project: pip install '.[{name}]' in the project's folder."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint " Did you mean ...?" when a known name is close, else ""."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def one_edit(one: str, other: str) -> bool:
    """Say whether two words differ by a letter more, less or other, or by two exchanged."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    pairs = zip(one, other, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    a, b = one[same:], other[same:]
    return a[1:] in (b, b[1:]) or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
