"""Measure callables as ratios: both sides in one process, taking turns, medians of many.

A machine's speed changes from minute to minute; two sides that take turns see the same minutes.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from swin_dense.ops import verdicts


@dataclass(frozen=True)
class Pair:
    """What two sides took, one entry for each turn: seconds, or MiB."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Return how many times as good we are: the median over turns of theirs / ours."""
        return statistics.median(t / o for o, t in zip(self.ours, self.theirs, strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """Return the lower and the upper quartile of the ratios."""
        ratios = [t / o for o, t in zip(self.ours, self.theirs, strict=True)]
        if len(ratios) < 2:
            return ratios[0], ratios[0]
        quarters = statistics.quantiles(ratios, n=4, method="inclusive")
        return quarters[0], quarters[2]


@dataclass(frozen=True)
class Case:
    """One row of a table, not measured yet.

    Attributes:
        name: what is done.
        against: the other side.
        measure: (seconds to spend) -> what both sides took; prepares all it needs itself.
    """

    name: str
    against: str
    measure: Callable[[float], Pair]


class LeftOutError(Exception):
    """A case that this machine cannot measure; the text says in one line what is missing."""


def pair(
    ours: Callable[[], Any], theirs: Callable[[], Any], seconds: float = 4.0, most: int = 50
) -> Pair:
    """Call both in turns, the order changing, for about `seconds` and at least three times each."""
    for side in (ours, theirs):  # warm-up: caches, threads, lazy initialisation
        side()
    taken = Pair([], [])
    end = time.perf_counter() + seconds
    while len(taken.ours) < 3 or (time.perf_counter() < end and len(taken.ours) < most):
        turn = [(ours, taken.ours), (theirs, taken.theirs)]
        for side, times in turn if len(taken.ours) % 2 else reversed(turn):
            times.append(seconds_of(side))
    return taken


def seconds_of(call: Callable[[], Any]) -> float:
    """Time one call, until the device has finished, in seconds."""
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - start


def peak_memory() -> float:
    """MiB: of the GPU since its counter was reset, else of the process since it started."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Linux hands getrusage's peak on from the process that started this one, but not this:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def machine() -> dict[str, Any]:
    """Return what the figures of a run hold for: device, CPU, threads and torch."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": verdicts.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
