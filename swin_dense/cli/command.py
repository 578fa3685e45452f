"""What all commands share: one message for a user's mistake, a traceback only for ours."""

import argparse
import contextlib
import errno
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from swin_dense.errors import InputError

# The disk or its owner says no; every other error of the system may be a fault of ours.
NO_PLACE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MISTAKE, FAULT, INTERRUPTED = 2, 1, 130  # exit statuses; argparse ends with 2 as well


def command(body: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser):
    """A function of the command line that runs `body` and returns an exit status."""

    @functools.wraps(body)
    def run(arguments: Sequence[str] | None = None) -> int:
        options = parser.parse_args(arguments)
        try:
            return body(options) or 0
        except InputError as error:
            if first_process():
                print(f"error: {message(error)}", file=sys.stderr, flush=True)
            return MISTAKE
        except OSError as error:
            if error.errno not in NO_PLACE:
                raise
            print(f"error: {error.filename or 'writing'}: {error.strerror}.", file=sys.stderr)
            return MISTAKE
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED

    return run


def first_process() -> bool:
    """Whether this process speaks and writes for all of a distributed run."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0


@contextlib.contextmanager
def work_dir(path: Path, keep: str = "*.pth") -> Iterator[None]:
    """A folder that a failing command made, and that holds nothing worth keeping, is removed."""
    fresh = not path.exists()
    try:
        yield
    except InputError:
        if fresh and not any(path.glob(keep)):
            shutil.rmtree(path, ignore_errors=True)
        raise


def message(error: InputError) -> str:
    """The text of the error; one from a data loading process arrives inside its traceback."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].rstrip()
