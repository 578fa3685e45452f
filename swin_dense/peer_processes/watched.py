"""Have the processes of a run watched from their first second: see `watcher.py`."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from swin_dense.errors import InputError, StoppedError
from swin_dense.peer_processes import watcher

SECONDS = 45.0  # that a process may be stopped, or a machine silent
LEAST = 5.0
GRACE = 10.0  # seconds to end by itself for a process that has lost another


class Watch:
    """A program that watches this process, and once they have met, all others."""

    def __init__(self, rank: int):
        self.rank = rank
        program = [sys.executable, "-I", "-S", watcher.__file__]
        self._program = subprocess.Popen(
            [*program, str(rank), str(os.getpid()), str(SECONDS), str(GRACE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def meet(self, broadcast: Callable[[list[str]], Any]) -> None:
        """Connect the watchers of all processes; all of them call this.

        Args:
            broadcast: has a list of all processes hold what that of rank 0 holds.
        """
        token, port = secrets.token_hex(16), ""
        here = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
        if self.rank == 0:
            self.tell(f"keep {token} {'here' if here else 'anywhere'}")
            port = self._answer()
        place = [token, port]
        broadcast(place)
        if self.rank and place[1]:
            host = "127.0.0.1" if here else os.environ["MASTER_ADDR"]
            self.tell(f"meet {place[0]} {host} {place[1]}")
            self._answer()

    def _answer(self) -> str:
        return self._program.stdout.readline().decode().strip() if self._program.stdout else ""

    def tell(self, text: str) -> None:
        """Send the program a line."""
        if self._program.stdin:
            with contextlib.suppress(OSError):  # it was killed; the run goes on without it
                self._program.stdin.write(text.encode() + b"\n")
                self._program.stdin.flush()


_watch: Watch | None = None  # of this process, which has one life


@contextlib.contextmanager
def from_the_start() -> Iterator[None]:
    """Watch this process, one of several, to its end; say how what is done within has ended."""
    global _watch
    given = os.environ
    several = given.get("WORLD_SIZE", given.get("SLURM_NTASKS", "1")) != "1"
    if _watch or not several or os.name != "posix":
        yield
        return
    _watch = Watch(int(given.get("RANK", given.get("SLURM_PROCID", "0"))))
    try:
        yield
    except StoppedError:
        _watch.tell("end")
        raise
    except BaseException:  # which says itself what happened
        _watch.tell("failed")
        raise
    _watch.tell("end")


def wait_at_most(seconds: Any) -> None:
    """Set how long a process may be stopped, or a machine silent; 0 for ever.

    Raises:
        InputError: this is no number of seconds, or too few for a busy machine.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or (seconds != 0 and not LEAST <= seconds < float("inf")):
        raise InputError(
            f"peer_timeout: seconds after which a run ends whose process is stopped, at least "
            f"{LEAST:g}, or 0 to wait for ever; got {seconds!r}."
        )
    if _watch:
        _watch.tell(f"wait {float(seconds) or float('inf')}")


def meet(broadcast: Callable[[list[str]], Any]) -> None:
    """Have the watchers of all processes know one another, if there are any; see `Watch.meet`."""
    if _watch:
        _watch.meet(broadcast)
