"""The arithmetic of a measurement; never a time."""

import itertools

import pytest

from swin_dense import benchmark


def test_the_ratio_is_the_median_over_turns():
    taken = benchmark.Pair(ours=[1.0, 2.0, 4.0, 1.0, 1.0], theirs=[3.0, 4.0, 4.0, 5.0, 10.0])
    assert taken.ratio == 3.0  # of 3, 2, 1, 5, 10
    assert taken.spread == (2.0, 5.0)


def test_both_sides_take_turns_after_a_warm_up():
    order = []
    taken = benchmark.pair(lambda: order.append("o"), lambda: order.append("t"), 0.0)
    assert order == list("ot") + list("to") + list("ot") + list("to")
    assert len(taken.ours) == len(taken.theirs) == 3


@pytest.mark.parametrize(("side", "expected"), [(1, 0.5), (4, 2.0)])
def test_seconds_are_those_of_the_call(monkeypatch, side, expected):
    ticks = itertools.count(0, expected)
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))
    assert benchmark.seconds_of(lambda: side) == expected


def test_peak_memory_is_a_size_in_mebibytes():
    assert 20 < benchmark.peak_memory() < 1e6
