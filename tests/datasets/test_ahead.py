"""Rows made in another thread come in order, no further ahead than asked, and end with a close."""

import gc
import threading

import pytest

import swin_dense.datasets.ahead as ahead_module
from swin_dense.datasets.ahead import ahead


class Rows:
    """Numbers, which note the thread that made them and whether they were closed."""

    def __init__(self, count, fails_at=None):
        self.made, self.threads, self.closed = 0, set(), False
        self.rows = self._make(count, fails_at)

    def _make(self, count, fails_at):
        try:
            for i in range(count):
                if i == fails_at:
                    raise ValueError(f"row {i}")
                self.made, _ = i + 1, self.threads.add(threading.current_thread().name)
                yield i
        finally:
            self.closed = True


def test_all_rows_come_in_order_from_one_other_thread():
    rows = Rows(20)
    assert list(ahead(rows.rows, 3)) == list(range(20))
    assert len(rows.threads) == 1
    assert threading.current_thread().name not in rows.threads
    assert rows.closed


def test_no_more_rows_are_made_than_asked_for():
    rows = Rows(20)
    taken = ahead(rows.rows, 3)
    assert [next(taken), next(taken)] == [0, 1]
    taken.close()
    assert 2 <= rows.made <= 5
    assert rows.closed


def test_an_error_comes_where_its_row_would():
    rows = Rows(20, fails_at=4)
    taken = ahead(rows.rows, 3)
    assert [next(taken) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="row 4"):
        next(taken)
    assert rows.closed


def test_a_row_that_takes_for_ever_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(ahead_module, "PATIENCE", 0.1)
    for_ever = threading.Event()

    def rows():
        yield 0
        for_ever.wait(60)
        yield 1

    taken = ahead(rows(), 1)
    assert next(taken) == 0
    taken.close()  # returns
    for_ever.set()


def test_a_stream_dropped_in_a_cycle_ends(monkeypatch):
    """The garbage collector may then run in the very thread that makes the rows."""
    collected = threading.Event()

    def rows():
        yield 0
        gc.collect()
        collected.set()
        yield 1

    cycle = [ahead(rows(), 1)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    assert collected.wait(20)
