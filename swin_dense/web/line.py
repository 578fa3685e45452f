"""Let requests wait in a line of bounded length, and end one whose time is up."""

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from swin_dense.errors import InputError


class Line:
    """A line before one desk: the first to come is served first, and not too many may wait.

    Attributes:
        most: requests that may be in it, the one that is served among them.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._tickets: collections.deque[object] = collections.deque()
        self._moved = threading.Condition()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn of this thread, and keep it within.

        Raises:
            InputError: the line is full.
        """
        ticket = object()
        with self._moved:
            if len(self._tickets) >= self.most:
                raise InputError(
                    f"Busy: {self.most} pictures are in line before this one, and no more may "
                    "wait. Try again in a few seconds."
                )
            self._tickets.append(ticket)
            try:
                self._moved.wait_for(lambda: self._tickets[0] is ticket)
            except BaseException:
                self._leave(ticket)
                raise
        try:
            yield
        finally:
            with self._moved:
                self._leave(ticket)

    def _leave(self, ticket: object) -> None:
        self._tickets.remove(ticket)
        self._moved.notify_all()


class Deadline:
    """The time that what this thread does may take; other threads have their own.

    A thread cannot be ended from outside, so it is asked on its way: by `ask`, and before each
    layer of the networks that `watch` was given. What a single layer takes comes on top.

    Attributes:
        seconds: that may pass.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._thread = threading.local()

    def watch(self, network: Any) -> None:
        """Have each layer of a network (`torch.nn.Module`) ask before it computes."""
        for layer in network.modules():
            layer.register_forward_pre_hook(lambda *_: self.ask())

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the time within."""
        self._thread.end = time.monotonic() + self.seconds
        try:
            yield
        finally:
            self._thread.end = None

    def ask(self) -> None:
        """Raise an InputError if the time is up."""
        end = getattr(self._thread, "end", None)
        if end is not None and time.monotonic() > end:
            raise InputError(
                f"This took more than {self.seconds:g} seconds, all that a picture is given here, "
                "and was ended. Give a smaller one, or choose a faster model."
            )
