"""Data loading processes that end with their parent, and that say when shared memory is full."""

import mmap
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from swin_dense import parent_process
from swin_dense.errors import InputError

GRACE = 30  # seconds that a process goes on loading data after it was asked to end
_LAST_ITERATION = mmap.mmap(-1, 1)  # one byte, shared with the processes that are forked
FULL = (
    "data loading: shared memory (/dev/shm), through which data loading processes hand over their "
    "batches, is full. Enlarge it (docker's options shm-size=8g or ipc=host), load fewer images at "
    "a time (train_dataloader.num_workers, .batch_size), or load them in the process itself: "
    "train_dataloader.num_workers=0, and the same of val_dataloader and test_dataloader."
)


def watch(loader: DataLoader) -> DataLoader:
    """Have the processes of a loader end with this one, and name full shared memory."""
    if loader.num_workers:
        loader.worker_init_fn = partial(_begin, os.getpid(), loader.worker_init_fn)
        loader.collate_fn = partial(_collate, loader.collate_fn)
    return loader


def needed(yes: bool) -> None:
    """Have processes that load data go on for an iteration although they are asked to end."""
    _LAST_ITERATION[0] = int(yes)


def is_full(error: BaseException) -> bool:
    """Say whether an error, of this process or told by one of its workers, means FULL."""
    text = str(error)
    return "shared memory" in text and ("allocate" in text or "Bus error" in text or "shm" in text)


def _begin(parent: int, then: Callable[[int], None] | None, worker: int) -> None:
    """Ask the system to end this process with its parent, which may be killed any time."""
    parent_process.end_with_it(signal.SIGKILL)
    if sys.platform == "linux":
        # It may have ended before; a fork server stands between the two.
        if os.getppid() != parent and multiprocessing.get_start_method() != "forkserver":
            os._exit(1)
    # Signals are for the run, which still needs this process for the iteration it is in.
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, _asked_to_end)
    if then is not None:
        then(worker)


def _asked_to_end(*_: Any) -> None:
    """End, unless the run was asked, too, and needs this process for its last iteration."""
    time.sleep(0.3)  # a signal to all processes reaches the run a little later, perhaps
    if not _LAST_ITERATION[0]:
        os._exit(0)
    signal.alarm(GRACE)


def _collate(collate: Callable[[Any], Any], samples: Any) -> Any:
    """Put a batch into shared memory here, where an error is told to the parent.

    Torch does it later, in a thread whose errors are printed and forgotten; the parent then waits
    for ever for a batch that does not come.
    """
    batch = collate(samples)
    if get_worker_info() is not None:
        try:
            _share(batch)
        except (RuntimeError, OSError) as error:
            raise (InputError(FULL) if is_full(error) else error) from error
    return batch


def _share(node: Any) -> None:
    if isinstance(node, Tensor):
        node.share_memory_()
    elif isinstance(node, Mapping):
        for part in node.values():
            _share(part)
    elif isinstance(node, list | tuple):
        for part in node:
            _share(part)
    elif isinstance(node, BaseDataElement):
        for part in node.values():
            _share(part)
