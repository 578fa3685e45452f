"""Signals that ask a training to end: it saves after the iteration it is in, and leaves.

A batch system sends SIGTERM (or, if asked, SIGUSR1) before its time limit, a closed terminal
SIGHUP, Ctrl-C SIGINT. A later one ends the process at once. Of several processes all leave after
the same iteration, which they agree on.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import distributed

from swin_dense.errors import StoppedError
from swin_dense.openmmlab.engine import workers

NUMBERS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGINT")
    if hasattr(signal, name)
]
# Signals this close to the first, in seconds, are the same request: a batch system and torchrun
# both pass it on, and a parent of several threads is reported dead for each of them.
ECHO = 2.0


class Leave(Hook):
    """Save and raise StoppedError once a signal has come, after the iteration or in an evaluation.

    It runs last, so that what other hooks do after an iteration is in the checkpoint.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self.asked: int = 0
        self._group: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if number := self._agreed():
            self._end(runner, number, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not self.asked:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # an evaluation is of the average
                hook._swap_ema_parameters()
        self._end(runner, self.asked, runner.iter)

    def _end(self, runner: Any, number: int, done: int) -> None:
        raise StoppedError(number, runner.save_to_go_on(done))

    def _agreed(self) -> int:
        """Return the signal that came to any process, in all of them after the same iteration.

        They ask one another in the background; the answer is known an iteration later.
        """
        if not (distributed.is_available() and distributed.is_initialized()):
            return self.asked
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        number = 0
        if self._pending is not None:
            self._pending[0].wait()
            number = int(self._pending[1])
        came = torch.tensor(self.asked)
        work = distributed.all_reduce(came, distributed.ReduceOp.MAX, self._group, async_op=True)
        self._pending = (work, came)
        return number


@contextlib.contextmanager
def listening() -> Iterator[Leave]:
    """Note the first signal in the hook that is given; a later one ends this process at once."""
    hook, owner, first = Leave(), os.getpid(), 0.0
    kept: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        # A process that loads data may have no handler of its own yet.
        if os.getpid() != owner or (hook.asked and now - first > ECHO):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if hook.asked:
            return
        hook.asked, first = number, now
        workers.needed(True)
        name = signal.Signals(number).name
        text = f"{name}: the run saves after this iteration and ends; another signal ends it now\n"
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())

    if threading.current_thread() is threading.main_thread():
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's stay so
                kept[number] = signal.signal(number, note)
    try:
        yield hook
    finally:
        workers.needed(False)
        for number, handler in kept.items():
            signal.signal(number, handler)
