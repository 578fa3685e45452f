"""Run a command: one message for a user's mistake, a traceback only for a fault of ours."""

import argparse
import contextlib
import errno
import functools
import io
import locale
import os
import shlex
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from swin_dense import parent_process
from swin_dense.errors import InputError, StoppedError
from swin_dense.peer_processes import watched

# The disk or its owner says no; every other error of the system may be a fault of ours.
NO_PLACE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MISTAKE, FAULT, INTERRUPTED = 2, 1, 130  # exit statuses; argparse ends with 2 as well
FIRST_SPEAKS = 15  # seconds that the others wait


def command(body: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser):
    """Return a function that parses arguments, runs `body` with them and returns the exit status.

    Its arguments: those of the command line if None; and the name that help and errors call the
    command by, if not the parser's.
    """

    @functools.wraps(body)
    def run(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
        parser.prog = prog or parser.prog
        accept_any_text()
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun started this process
            parent_process.end_with_it(signal.SIGTERM)
        options = parser.parse_args(arguments)
        ignore_what_they_mean()
        try:
            launched = getattr(options, "launcher", "none") != "none"
            start = watched.from_the_start() if launched else contextlib.nullcontext()
            with start, after_the_first(), stopped_by_signals():
                require_home()
                return body(options) or 0
        except InputError as error:
            who = "" if first_process() else f"rank {_rank()}: "
            text = worded(message(error), parser)
            print(f"error: {who}{text}", file=sys.stderr, flush=True)
            return MISTAKE
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise
            print(f"error: {error.filename or 'writing'}: {error.strerror}.", file=sys.stderr)
            return MISTAKE
        except StoppedError as error:
            if not error.saved:
                text = f"stopped by {error.signal.name}{_how_on(parser)}"
            else:
                how = "to go on" if _alone() else "to go on, under the same launcher"
                text = f"stopped by {error.signal.name}: {error.saved}; {how}:\n  "
                text += _again(parser, arguments)
            if first_process():
                print(text, file=sys.stderr, flush=True)
            if error.signal == signal.SIGINT:
                return INTERRUPTED
            return 128 + (signal.SIGTERM if error.saved else error.signal)
        except KeyboardInterrupt:
            print(f"interrupted{_how_on(parser)}", file=sys.stderr, flush=True)
            return INTERRUPTED

    return run


@contextlib.contextmanager
def after_the_first() -> Iterator[None]:
    """Let the first process be the first to end with a mistake found before a training.

    It is mostly the same in all, and torchrun ends the others with that one. What is of another
    one alone is said later.
    """
    try:
        yield
    except InputError as error:
        if not first_process() and error.iterations is None:
            time.sleep(FIRST_SPEAKS)
        raise


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise StoppedError at the first SIGTERM or SIGHUP within; a second one ends at once.

    One that is ignored stays so (nohup). Of several processes each ends at once, as before: one
    that waits for the others would not come to raise anything.
    """
    owner, kept = os.getpid(), {}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a data loading process that has no handler of its own yet
            os.kill(os.getpid(), number)
        raise StoppedError(number)

    alone = _alone()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        with contextlib.suppress(ValueError):  # only the main thread may
            if alone and signal.getsignal(number) is signal.SIG_DFL:
                kept[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _how_on(parser: argparse.ArgumentParser) -> str:
    """Say how to go on, if the command can."""
    can = any(action.dest == "resume" for action in parser._actions)
    return "; --resume goes on from the last checkpoint" if can else ""


def _again(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> str:
    """Return the command that goes on from what was saved."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--resume" in given:
        place = given.index("--resume")
        value = given[place + 1 : place + 2]
        del given[place : place + 1 + bool(value and not value[0].startswith("--"))]
    given = [one for one in given if not one.startswith("--resume=")]
    start = "python " if parser.prog.endswith(".py") and _alone() else ""
    return start + shlex.join([*parser.prog.split(), *given, "--resume"])


def accept_any_text() -> None:
    """Escape what the console cannot print, and write files as UTF-8 where no encoding is stated.

    Names of classes and files may be of any alphabet; none is a reason to end a run, or its log.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def require_home() -> None:
    """Check that this user has a home folder, without which libraries do not import.

    Raises:
        InputError: HOME is not set, and the system knows no folder either.
    """
    try:
        Path.home()
    except RuntimeError as error:
        raise InputError(
            "this user has no home folder, where libraries keep settings and downloads. Set HOME "
            "to a folder that may be written to, as in HOME=/tmp."
        ) from error


def ignore_what_they_mean() -> None:
    """Leave out warnings of mmcv, mmdet and mmseg about what their own models and recipes do."""
    for start in (
        "Default ``avg_non_ignore`` is False",  # mmseg at every start; the recipes mean it
        "DeprecationWarning: `num_anchors`",  # mmdet's own ATSSHead and DyHead
        "In MMCV v1.4.4",
        "torch.meshgrid: in an",
    ):
        warnings.filterwarnings("ignore", message=start)
    # mmdet's mask heads copy a tensor (of HTC) as they would copy an array.
    warnings.filterwarnings("ignore", message="To copy construct from a tensor", module=r"mmdet\.")


def first_process() -> bool:
    """Return whether this process speaks and writes for all of a distributed run."""
    return _rank() == 0


def _alone() -> bool:
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1))) == 1


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))


@contextlib.contextmanager
def work_dir(path: Path, keep: str = "*.pth") -> Iterator[None]:
    """Remove the folder after a failing command that made it, if nothing ran in it.

    A training that made an iteration keeps its log, whatever ended it.
    """
    fresh = not path.exists()
    try:
        yield
    except InputError as error:
        if fresh and first_process() and not error.iterations and not any(path.glob(keep)):
            shutil.rmtree(path, ignore_errors=True)
        raise


def message(error: InputError) -> str:
    """Return the error's text alone; from a data loading process it comes inside a traceback."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].rstrip()


def worded(text: str, parser: argparse.ArgumentParser) -> str:
    """Write each setting that a text names in backticks, `load_from`, as the command's own option.

    What the command has no option for stays as it is: it is a setting of the config.
    """
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        text = text.replace(f"`{action.dest}`", flags[0]) if flags else text
    return text
