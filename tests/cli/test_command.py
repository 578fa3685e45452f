"""How a command ends: a user's mistake in one line, a fault of ours with its traceback."""

import argparse
import errno
import os
import pwd
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from swin_dense.checkpoints import files
from swin_dense.cli import options
from swin_dense.cli.command import (
    FAULT,
    FIRST_SPEAKS,
    INTERRUPTED,
    MISTAKE,
    command,
    first_process,
    worded,
    work_dir,
)
from swin_dense.errors import InputError, MissingInputError, StoppedError


def ended(body, *words):
    return command(body, options.parser("tools/x.py", ""))(list(words))


def raising(error):
    def body(asked):
        raise error

    return body


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (FAULT, 1), (7, 7)])
def test_the_body_s_status_is_the_command_s(result, status):
    assert ended(lambda asked: result) == status


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InputError("data: no image."), "error: data: no image.\n"),
        (MissingInputError("there is no file x."), "error: there is no file x.\n"),
        # As a data loading process hands it on.
        (InputError("Caught it in\nTraceback\nInputError: a.png: cut."), "error: a.png: cut.\n"),
        (OSError(errno.ENOSPC, "No space left", "w.pth"), "error: w.pth: No space left.\n"),
        (PermissionError(errno.EACCES, "Not allowed"), "error: writing: Not allowed.\n"),
    ],
)
def test_a_mistake_is_its_text_alone(error, says, capsys):
    assert ended(raising(error)) == MISTAKE
    assert capsys.readouterr() == ("", says)


def test_an_interruption_has_its_status(capsys):
    assert ended(raising(KeyboardInterrupt())) == INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.ENOENT, "gone", "x")])
def test_a_fault_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error), match=str(error.args[-1])):
        ended(raising(error))


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"RANK": "2"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_one_process_speaks_for_all(monkeypatch, capsys, variables, first):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in variables.items():
        monkeypatch.setenv(name, rank)
    waited = []
    monkeypatch.setattr("swin_dense.cli.command.time.sleep", waited.append)
    assert first_process() is first
    assert ended(raising(InputError("said once."))) == MISTAKE
    who = "" if first else f"rank {next(iter(variables.values()))}: "
    assert capsys.readouterr().err == f"error: {who}said once.\n"
    assert waited == ([] if first else [FIRST_SPEAKS])  # torchrun would have ended it meanwhile


def test_help_calls_the_command_as_it_was_called(capsys):
    run = command(lambda asked: None, options.parser("tools/x.py", "Do x."))
    for prog, shown in ((None, "tools/x.py"), ("swin-dense x", "swin-dense x")):
        with pytest.raises(SystemExit, match="0"):
            run(["--help"], prog=prog)
        assert capsys.readouterr().out.startswith(f"usage: {shown} [-h]\n\nDo x.\n")


def test_a_user_without_a_home_is_told_to_set_one(monkeypatch, capsys):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert ended(lambda asked: None) == MISTAKE
    assert "this user has no home folder" in capsys.readouterr().err
    monkeypatch.setenv("HOME", "/tmp")
    assert ended(lambda asked: None) == 0


def test_any_name_can_be_printed_and_logged(tmp_path):
    """On a console and in a locale of ASCII, which Python itself would leave, told not to."""
    code = (
        "import logging, sys\n"
        "from swin_dense.cli import options\n"
        "from swin_dense.cli.command import command\n"
        "def body(asked):\n"
        "    print('a \\u732b')\n"
        "    print('b \\u732b', file=sys.stderr)\n"
        "    logging.FileHandler('x.log').stream.write('c \\u732b')\n"
        "sys.exit(command(body, options.parser('x', ''))([]))\n"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **ascii_only, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a \\u732b\n", b"b \\u732b\n")
    assert (tmp_path / "x.log").read_text(encoding="utf-8") == "c \u732b"


@pytest.mark.parametrize(
    ("before", "within", "stays"),
    [(False, [], False), (False, ["log"], False), (False, ["iter_3.pth"], True), (True, [], True)],
)
def test_a_failing_command_leaves_no_empty_work_dir(tmp_path, before, within, stays):
    folder = tmp_path / "w"
    if before:
        folder.mkdir()
    with pytest.raises(InputError), work_dir(folder):
        folder.mkdir(exist_ok=True)
        for name in within:
            (folder / name).write_text("")
        raise InputError("no.")
    assert folder.exists() is stays


def test_settings_named_in_backticks_become_the_command_s_own_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--load-from")
    parser.add_argument("-n", "--max-iters")
    text = "use `load_from`, `max_iters` or `pretrained` of the `config`"
    expected = "use --load-from, --max-iters or `pretrained` of the `config`"
    assert worded(text, parser) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_clears_up_and_says_how_to_go_on(tmp_path, capsys, monkeypatch, number):
    """As for Ctrl-C: no half-written file stays, and the status is the signal's."""
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    found = signal.signal(number, signal.SIG_DFL)  # nohup, for one, has it ignored

    def saving(asked):
        with files.replaced(tmp_path / "iter_1.pth"):
            os.kill(os.getpid(), number)
            time.sleep(5)

    parser = options.parser("saving", "")
    parser.add_argument("--resume")
    try:
        assert command(saving, parser)([]) == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, found)
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert said == f"stopped by {number.name}; --resume goes on from the last checkpoint\n"


@pytest.mark.parametrize(
    ("given", "again"),
    [
        (["a b.py", "--max-iters", "3"], "'a b.py' --max-iters 3 --resume"),
        (["--max-iters", "3", "a.py"], "--max-iters 3 a.py --resume"),
        (["c.py", "--resume", "w/iter_2.pth", "--seed=1"], "c.py --seed=1 --resume"),
        (["c.py", "--resume=w/iter_2.pth"], "c.py --resume"),
        (["c.py", "--resume", "--seed=1"], "c.py --seed=1 --resume"),
    ],
)
def test_a_run_that_a_signal_ended_is_taken_up_by_the_line_it_prints(
    capsys, monkeypatch, given, again
):
    for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)

    def body(asked):
        raise StoppedError(signal.SIGUSR1, "iteration 2 is saved as w/iter_2.pth")

    parser = options.parser("tools/train.py", "")
    parser.add_argument("config")
    parser.add_argument("--resume", nargs="?", const="latest")
    parser.add_argument("--max-iters")
    parser.add_argument("--seed")
    assert command(body, parser)(given) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "stopped by SIGUSR1: iteration 2 is saved as w/iter_2.pth; to go on:"
    assert said[1] == f"  python tools/train.py {again}"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(body, parser)(given) == 128 + signal.SIGTERM
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("; to go on, under the same launcher:")
    assert said[1] == f"  tools/train.py {again}"
