"""A data loading process ends with its parent, and full shared memory is an error of the parent."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import workers

PARENT = """
import sys, time
from torch.utils.data import DataLoader
from swin_dense.openmmlab.engine import workers
class Slow:
    def __len__(self): return 4
    def __getitem__(self, i):
        print(__import__("os").getpid(), flush=True)
        time.sleep(60)
next(iter(workers.watch(DataLoader(Slow(), num_workers=1, prefetch_factor=1))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells only there")
def test_a_worker_ends_with_a_parent_that_is_killed():
    run = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    worker = int(run.stdout.readline())
    run.send_signal(signal.SIGKILL)
    run.wait()
    for _ in range(200):
        if not _runs(worker):
            return
        time.sleep(0.02)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def _runs(process):
    """Say whether a process is there; one that only waits for being counted is not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _no_room(self):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left")


def test_full_shared_memory_is_named(monkeypatch):
    """Torch itself would print it in a thread of the worker, and wait for ever."""
    monkeypatch.setattr(torch.Tensor, "share_memory_", _no_room)
    samples = [torch.zeros(3, 5)] * 2
    loader = workers.watch(DataLoader(samples, num_workers=1, multiprocessing_context="fork"))
    with pytest.raises(InputError, match=r"shared memory .* is full.*num_workers=0"):
        next(iter(loader))


def test_too_little_shared_memory_is_told_at_the_start(monkeypatch):
    """Two workers keep two batches each of 6 x 2^20 bytes ready, and one is in use."""
    monkeypatch.setattr(workers, "SHARED", Path(__file__).parent)  # on systems without it
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    samples = [torch.zeros(3, 512, 512)] * 20

    def load(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
        loader = DataLoader(samples, 2, num_workers=2, multiprocessing_context="fork")
        return next(iter(workers.watch(loader)))

    needed = 3 * 5 * 6 * 2**20
    assert load(needed).shape == (2, 3, 512, 512)
    with pytest.raises(InputError, match=r"5 batches in each of 3 .* need 90 MiB.*shm-size=8g"):
        load(needed - 1)


def test_a_batch_comes_as_it_is():
    samples = [{"inputs": torch.full((2, 3), float(i)), "name": str(i)} for i in range(3)]
    loader = workers.watch(DataLoader(samples, num_workers=1, batch_size=3, collate_fn=list))
    (batch,) = loader
    assert [s["name"] for s in batch] == ["0", "1", "2"]
    assert [s["inputs"][1, 2].item() for s in batch] == [0, 1, 2]
