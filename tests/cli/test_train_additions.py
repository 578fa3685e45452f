"""What options add to a training, on runs of a few small images."""

import pytest
import torch
from conftest import CONFIGS, SMALL

from swin_dense.checkpoints import files
from swin_dense.cli import train
from swin_dense.cli.command import MISTAKE

EACH = ["default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.by_epoch=False"]


@pytest.fixture
def start(small_shapes, tmp_path, capfd):
    """A function that trains a segmentor and returns the status and what was printed."""

    def run(*words, iterations=2, settings=()):
        status = train.main(
            [str(CONFIGS["segmentation"]), "--data-root", str(small_shapes.root)]
            + ["--work-dir", str(tmp_path / "w"), "--max-iters", str(iterations), *words]
            + [*SMALL, *EACH, *settings]
        )
        return status, "".join(capfd.readouterr())

    return run


def test_the_average_is_what_is_saved(start, tmp_path):
    status, printed = start("--ema", "0.3", "--no-val")
    assert status == 0
    assert "half-precision weights, both the average of the weights, and the log" in printed
    one, two = (files.read(tmp_path / f"w/iter_{i}.pth") for i in (1, 2))
    half = files.read(tmp_path / "w/weights_fp16.safetensors")
    assert half["meta"]["averaged"] is two["meta"]["averaged"] is True
    for name, mean in two["state_dict"].items():
        assert torch.equal(half["state_dict"][name], mean.half() if mean.dim() else mean)
        if not mean.is_floating_point():
            continue
        first, second = (c["ema_state_dict"][f"module.{name}"] for c in (one, two))
        expected = first + max(0.3, 10 / 11) * (second - first)  # of the weights of each iteration
        torch.testing.assert_close(mean, expected)
    status, printed = start("--resume", "--extend", "--no-val", iterations=3)
    assert status == MISTAKE
    assert "averages its weights. Resume it as it was started, with --ema." in printed
    status, printed = start("--resume", "--extend", "--no-val", "--ema", "0.4", iterations=3)
    assert status == 0
    assert "`ema` 0.3 -> 0.4" in printed
