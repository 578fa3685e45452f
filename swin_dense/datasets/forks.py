"""A piece of work divided among the cores of the machine, where processes can be forked."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
MOST = 4  # processes: more of them wait for the memory


def cores() -> int:
    """Return how many processes `each` should use: 1 where this one cannot fork."""
    current = multiprocessing.process.current_process()
    if "fork" not in multiprocessing.get_all_start_methods() or current.daemon:
        return 1
    if threading.current_thread() is not threading.main_thread():
        return 1  # the others may hold locks that a fork never gives back
    return min(MOST, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def each(work: Callable[[int], Result], count: int) -> list[Result]:
    """Return `[work(0), ..., work(count - 1)]`, all but the first computed in forked processes.

    What one of them raises is raised here; what one that was killed should have done is done here.

    Args:
        work: sees the memory of this process as it is now, and changes none of it; what it
            returns can be pickled. Arrays come back with no more than one copy of them here.
    """
    context: Any = multiprocessing.get_context("fork") if count > 1 else None
    started = []
    try:
        for i in range(1, count):
            read_end, write_end = os.pipe()
            here = open(read_end, "rb")  # noqa: SIM115
            process = context.Process(target=_send, args=(work, i, write_end), daemon=True)
            with warnings.catch_warnings():  # of other threads: it runs no code of theirs
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            os.close(write_end)
            started.append((process, here))
        return [work(0), *(_receive(work, i, here) for i, (_, here) in enumerate(started, 1))]
    finally:
        for process, here in started:
            here.close()
            process.kill()  # it has sent all it had, or is no longer needed
            process.join()


def _send(work: Callable[[int], Any], i: int, write_end: int) -> None:
    try:
        answer = True, work(i)
    except Exception as error:
        answer = False, error
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    with contextlib.suppress(BrokenPipeError), open(write_end, "wb") as there:
        raw = [buffer.raw() for buffer in buffers]
        pickle.dump((data, [len(view) for view in raw]), there)
        for view in raw:
            there.write(view)


def _receive(work: Callable[[int], Any], i: int, here: Any) -> Any:
    try:
        data, sizes = pickle.load(here)
        buffers = [bytearray(size) for size in sizes]
        if any(here.readinto(buffer) < len(buffer) for buffer in buffers):
            raise EOFError
    except (EOFError, pickle.UnpicklingError):  # killed, most likely for want of memory
        return work(i)
    right, answer = pickle.loads(data, buffers=buffers)
    if not right:
        raise answer
    return answer
