"""What a run does beside training: plain checkpoints, enough log lines, a stop at a broken loss."""

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.engine.hooks import HostMemory, PlainCheckpoint, Progress


def test_a_checkpoint_holds_plain_values_only():
    weights = {"weight": torch.arange(6.0).view(2, 3)}
    checkpoint = {
        "state_dict": weights,
        "message_hub": {
            "log_scalars": {"train/loss": HistoryBuffer([1.0, 2.0], [1, 1])},
            "runtime_info": {"rate": np.float64(0.5), "many": [np.int64(3), (np.float32(2),)]},
            "resumed_keys": {"rate": True},
        },
        "meta": {
            "epoch": np.int64(4),
            "good": np.bool_(True),
            "dataset_meta": {
                "classes": ("a", "b"),
                "palette": np.array([[1, 2, 3], [4, 5, 6]], np.uint8),
            },
            "seed": None,
        },
    }
    runner = SimpleNamespace(cfg=Config({"model": {"type": "Net", "size": (3, np.int64(2))}}))
    PlainCheckpoint().before_save_checkpoint(runner, checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert torch.equal(read.pop("state_dict")["weight"], weights["weight"])
    assert read == {
        "message_hub": {
            "log_scalars": {},
            "runtime_info": {"rate": 0.5, "many": [3, (2.0,)]},
            "resumed_keys": {"rate": True},
        },
        "meta": {
            "epoch": 4,
            "good": True,
            "dataset_meta": {"classes": ("a", "b"), "palette": [[1, 2, 3], [4, 5, 6]]},
            "seed": None,
            "averaged": False,
            "config": {
                "file": None,
                "values": {"model": {"type": "Net", "size": {"__tuple__": [3, 2]}}},
            },
        },
    }


@pytest.mark.parametrize(
    ("iterations", "interval"),
    [(1, 1), (8, 1), (39, 1), (40, 2), (170, 8), (1000, 50), (160000, 50)],
)
def test_a_run_has_at_least_twenty_lines(iterations, interval):
    hook = Progress(interval=50)
    hook.before_train(SimpleNamespace(max_iters=iterations))
    assert hook.interval == interval
    assert iterations // hook.interval >= min(20, iterations)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize(("batches", "lines"), [(1, 1), (3, 3), (5, 5), (9, 9), (23, 5), (5000, 5)])
def test_an_evaluation_has_about_five_lines(split, batches, lines):
    said = []
    runner = SimpleNamespace(
        logger=SimpleNamespace(info=said.append),
        log_processor=SimpleNamespace(get_log_after_iter=lambda _, i, kind: ({}, (kind, i))),
        **{f"{split}_dataloader": range(batches)},
    )
    for index in range(batches):
        getattr(Progress(interval=50), f"after_{split}_iter")(runner, index)
    assert len(said) == lines
    assert all(kind == split for kind, _ in said)


def test_host_memory_is_the_peak_in_mib():
    hub = MessageHub.get_instance("test_host_memory")
    HostMemory().after_train_iter(SimpleNamespace(message_hub=hub), 0)
    if torch.cuda.is_available():
        assert "train/memory" not in hub.log_scalars
        return
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc to compare with")
    line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
    peak = int(line.split()[1]) / 1024  # KiB
    assert hub.get_scalar("train/memory").current() == pytest.approx(peak, rel=0.02, abs=2)
