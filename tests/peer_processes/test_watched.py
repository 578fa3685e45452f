"""A process that is killed or stopped is named, and ends the others; one that is busy is not."""

import os
import signal
import subprocess
import sys

import pytest

from swin_dense.errors import InputError
from swin_dense.peer_processes import watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system tells only there")

# Two of these are a run; what torch would broadcast goes through a file.
PROGRAM = """
import ctypes, os, pathlib, sys, time
from swin_dense.peer_processes import watched
watched.SECONDS, watched.LEAST, watched.GRACE = 2.0, 1.0, 0.5
file = pathlib.Path(sys.argv[1])
def broadcast(values):
    if os.environ["RANK"] == "0":
        file.with_suffix(".part").write_text(" ".join(values))
        file.with_suffix(".part").rename(file)
    while not file.exists():
        time.sleep(0.01)
    values[:] = file.read_text().split()
with watched.from_the_start():
    watched.wait_at_most(1)
    watched.meet(broadcast)
    time.sleep(0.3)
    print("met", flush=True)
    what = sys.stdin.readline().strip()
    if what == "busy":
        ctypes.PyDLL(None).sleep(2)  # nothing else of this process comes to run
    elif what == "fail":
        raise SystemExit("a reason of its own")
    elif what != "end":
        time.sleep(60)
"""


@pytest.fixture
def run(tmp_path):
    """Two processes, the watched ones of a run, and a way to tell both what to do."""
    started = []
    for rank in ("0", "1"):
        given = os.environ | {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "place")]
        started.append(
            subprocess.Popen(command, env=given, text=True, start_new_session=True, **pipes)
        )
    for one in started:
        assert one.stdout.readline() == "met\n"
    yield started
    for one in started:
        if one.poll() is None:
            one.kill()
            one.communicate()


def told(run, *words):
    """Say these to the processes; return statuses and errors of the two. Watchers end, too."""
    for one, word in zip(run, words, strict=False):
        one.stdin.write(word + "\n")
        one.stdin.flush()
    ended = [one.communicate(timeout=30) for one in run]
    return [one.returncode for one in run], [error for _, error in ended]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_is_named_and_ends_the_run(run, number, lost):
    run[lost].send_signal(number)
    statuses, errors = told(run)
    assert statuses == [-9, -9]
    what = (
        "was killed or crashed (signal 9)"
        if number == signal.SIGKILL
        else "was stopped (SIGSTOP) for 1 s"
    )
    first, *others = "".join(errors).splitlines()
    assert first.startswith(f"error: process {run[lost].pid} of rank {lost} on ")
    assert what in first
    (other,) = others
    assert f"{run[1 - lost].pid} of rank {1 - lost}" in other
    assert "still waits 0.5 s later and is killed" in other


def test_a_process_stopped_with_its_watcher_is_missed(run):
    """As one whose machine does not answer; here it can be killed."""
    os.killpg(run[1].pid, signal.SIGSTOP)
    statuses, errors = told(run)
    assert statuses == [-9, -9]
    first = errors[0].splitlines()[0]
    assert first.startswith(f"error: process {run[1].pid} of rank 1 on ")
    assert "has not answered for 1 s" in first


def test_nothing_is_said_of_processes_that_end(run):
    assert told(run, "end", "end") == ([0, 0], ["", ""])


def test_a_process_that_is_busy_is_not_lost(run):
    assert told(run, "busy", "end") == ([0, 0], ["", ""])


def test_a_process_that_fails_speaks_itself_and_ends_the_others(run):
    statuses, errors = told(run, "wait", "fail")
    assert statuses == [-9, 1]
    assert errors[1] == "a reason of its own\n"
    assert errors[0].count("\n") == 1
    assert "is killed" in errors[0]


def test_a_process_that_fails_as_it_misses_another_does_not_hide_it(run):
    os.kill(run[0].pid, signal.SIGSTOP)  # so that the other is known to have failed first
    run[1].stdin.write("fail\n")
    run[1].stdin.flush()
    run[1].wait(30)
    os.kill(run[0].pid, signal.SIGKILL)
    _, errors = told(run)
    assert errors[1] == "a reason of its own\n"
    assert f"process {run[0].pid} of rank 0" in errors[0]
    assert "was killed or crashed (signal 9)" in errors[0]


@pytest.mark.parametrize("seconds", ["45", 4, True, -1, float("inf")])
def test_a_wrong_time_is_refused(seconds):
    with pytest.raises(InputError, match=r"peer_timeout: seconds .* at least 5, or 0 to wait"):
        watched.wait_at_most(seconds)
