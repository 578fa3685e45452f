"""Which back end of window attention is faster is measured, kept and read again."""

import json

import pytest
import torch
from devices import needs_kernels

from swin_dense.benchmarks import choose
from swin_dense.ops import trust, verdicts

CPU = torch.device("cpu")


@needs_kernels
def test_every_size_that_the_kernel_takes_is_measured_both_ways(monkeypatch):
    monkeypatch.setattr(choose, "WINDOWS", (2, 3))
    monkeypatch.setattr(choose, "HEAD_DIMS", (4,))
    monkeypatch.setattr(choose, "ACROSS", 2)
    found = list(choose.measure(CPU, seconds=0))
    assert [one.size for one in found] == [
        (f"torch.{dtype}", f"window {window}", "heads up to 32", direction)
        for dtype in ("float32", "bfloat16")  # all that the CPU's takes
        for window in (2, 3)
        for direction in ("forward", "both ways")
    ]
    assert all(one.ratio > 0 for one in found)


@pytest.mark.parametrize(("ratio", "taken"), [(1.4, "kernel"), (0.99, "kernel"), (0.9, "sdpa")])
def test_the_clearly_faster_one_is_taken(ratio, taken):
    assert choose.Choice((), ratio).faster == taken


def test_what_was_measured_holds_in_the_next_process(tmp_path, monkeypatch):
    file = tmp_path / "verdicts.json"
    monkeypatch.setattr(verdicts, "path", lambda device: file)
    verdicts.add(file, {"kernel nms torch.float32": None})
    sizes = [trust.size_of(torch.bfloat16, 12, 32, training) for training in (False, True)]
    choose.keep(CPU, [choose.Choice(sizes[0], 2.0), choose.Choice(sizes[1], 0.5)])
    assert json.loads(file.read_text()) == {
        "kernel nms torch.float32": None,
        "faster": {
            "torch.bfloat16, window 12, heads up to 32, forward": "kernel",
            "torch.bfloat16, window 12, heads up to 32, both ways": "sdpa",
        },
    }
    monkeypatch.setattr(trust, "_faster", {})
    monkeypatch.setattr(trust, "_seen", set())
    monkeypatch.setattr(trust, "no_code", lambda *_: None)
    trust.decide("nms", CPU, torch.float32)
    qkv = torch.empty(1, 5, 5, 3, 2, 20, dtype=torch.bfloat16)
    assert trust.faster(qkv, 12) == "kernel"
    assert trust.faster(qkv.requires_grad_(), 12) == "sdpa"
    assert trust.faster(qkv, 7) is None
