"""Work divided among forked processes: its order, its errors, and a process that is killed."""

import os
import signal
import threading

import pytest

from swin_dense.datasets import forks


def test_answers_come_in_order_from_as_many_processes():
    numbers, processes = zip(*forks.each(lambda i: (i * i, os.getpid()), 5), strict=True)
    assert numbers == (0, 1, 4, 9, 16)
    assert processes[0] == os.getpid()
    assert len(set(processes)) == 5


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_of_any_of_them_is_raised_here(bad):
    def work(i: int) -> int:
        if i == bad:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return i

    with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
        forks.each(work, 3)


def test_the_work_of_a_killed_process_is_done_here():
    here = os.getpid()

    def work(i: int) -> tuple[int, bool]:
        if i == 1 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return i, os.getpid() == here

    assert forks.each(work, 3) == [(0, True), (1, True), (2, False)]


def test_a_process_without_children_works_alone():
    assert forks.cores() == min(forks.MOST, len(os.sched_getaffinity(0)))
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(forks.cores()))
    thread.start()
    thread.join()
    assert found == [1]
