"""Data loading processes: end with their parent, and say when shared memory is too small."""

import mmap
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from swin_dense import parent_process
from swin_dense.errors import InputError

GRACE = 30  # seconds that a process goes on loading data after it was asked to end
_LAST_ITERATION = mmap.mmap(-1, 1)  # one byte, shared with the processes that are forked
SHARED = Path("/dev/shm")
REMEDY = (
    "Enlarge it (docker's options shm-size=8g or ipc=host), load fewer images at "
    "a time (train_dataloader.num_workers, .batch_size), or load them in the process itself: "
    "train_dataloader.num_workers=0, and the same of val_dataloader and test_dataloader."
)
HANDED = "through which data loading processes hand over their batches"
FULL = f"data loading: shared memory ({SHARED}), {HANDED}, is full. {REMEDY}"


def watch(loader: DataLoader) -> DataLoader:
    """Have the processes of a loader end with this one, and name full shared memory."""
    if loader.num_workers:
        loader.worker_init_fn = partial(_begin, os.getpid(), loader.worker_init_fn)
        ahead = loader.num_workers * (loader.prefetch_factor or 1) + 1  # one more is in use
        # Asked before any batch is there, which is among those that are counted.
        free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else None
        loader.collate_fn = _Collate(loader.collate_fn, ahead, free)
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


class _Collate:
    """Put a batch into shared memory here, where an error is told to the parent.

    Torch does it later, in a thread whose errors are printed and forgotten; the parent then waits
    for ever for a batch that does not come.

    Args:
        ahead: batches of one loader that exist at the same time.
        free: bytes of shared memory; None if the system sets no limit.
    """

    def __init__(self, collate: Callable[[Any], Any], ahead: int, free: int | None):
        self._collate, self._ahead, self._free = collate, ahead, free
        self._first = True

    def __call__(self, samples: Any) -> Any:
        """Return the batch; before the first one, check that all of them have room.

        Raises:
            InputError: shared memory is too small, or full.
        """
        batch = self._collate(samples)
        worker = get_worker_info()
        if worker is None:
            return batch
        if self._first and worker.id == 0 and self._free is not None:
            size = sum(one.untyped_storage().nbytes() for one in _tensors(batch))
            _require_room(size, self._ahead, self._free)
        self._first = False
        try:
            for one in _tensors(batch):
                one.share_memory_()
        except (RuntimeError, OSError) as error:
            raise (InputError(FULL) if is_full(error) else error) from error
        return batch


def _require_room(size: int, ahead: int, free: int) -> None:
    """Check that shared memory has room for so many batches, in all processes of this machine."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    whole = size * ahead * processes
    if whole > free:
        several = f" in each of {processes} processes" if processes > 1 else ""
        raise InputError(
            f"data loading: shared memory ({SHARED}), {HANDED}, is too small: {free / 2**20:,.0f} "
            f"MiB are free, and {ahead} batches{several} of {size / 2**20:,.1f} MiB, as the first "
            f"one has, need {whole / 2**20:,.0f} MiB. {REMEDY}"
        )


def _tensors(node: Any) -> Iterator[Tensor]:
    """Yield the tensors of a batch."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping | BaseDataElement):
        for part in node.values():
            yield from _tensors(part)
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _tensors(part)
