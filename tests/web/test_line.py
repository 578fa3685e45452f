"""Requests are served in the order in which they came, not too many wait, none takes for ever."""

import threading

import pytest
import torch

from swin_dense.errors import InputError
from swin_dense.web import line
from swin_dense.web.line import Deadline, Line


def test_first_come_first_served_and_no_more_than_may_wait():
    row, served, at_desk, go_on = Line(4), [], threading.Event(), threading.Event()

    def stand(number):
        with row.turn():
            at_desk.set()
            go_on.wait(10)
            served.append(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=stand, args=(number,)))
        threads[-1].start()
        at_desk.wait(10)
        while len(row._tickets) <= number:
            pass
    with pytest.raises(InputError, match=r"^Busy: 4 pictures are in line"), row.turn():
        pass
    assert served == []
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert served == [0, 1, 2, 3]
    with pytest.raises(KeyError), row.turn():  # who fails at the desk leaves it
        raise KeyError
    with row.turn():
        served.append("last")
    assert served[-1] == "last"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(line, "time", clock)
    return clock


def test_a_network_is_ended_at_the_layer_where_its_time_is_up(clock):
    class Slow(torch.nn.Identity):
        def forward(self, x):
            clock.now += 2
            passed.append(clock.now)
            return x

    passed = []
    network = torch.nn.Sequential(*(torch.nn.Sequential(Slow()) for _ in range(9)))
    deadline = Deadline(5)
    deadline.watch(network)
    with (
        pytest.raises(InputError, match="more than 5 seconds, all that a picture is given"),
        deadline.running(),
    ):
        network(torch.zeros(1))
    assert passed == [102, 104, 106]
    network(torch.zeros(1))  # without a deadline, of this thread or of another, it runs to its end
    assert len(passed) == 3 + 9
    with deadline.running():
        other = threading.Thread(target=network, args=(torch.zeros(1),))
        other.start()
        other.join()
    assert len(passed) == 3 + 9 + 9
    with pytest.raises(InputError), deadline.running():
        clock.now += 6
        deadline.ask()
