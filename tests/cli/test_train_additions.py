"""What options add to a training, on runs of a few small images."""

import sys
from types import ModuleType

import pytest
import torch
from conftest import CONFIGS, SMALL
from mmengine.config import Config

from swin_dense.checkpoints import files
from swin_dense.cli import train
from swin_dense.cli.command import MISTAKE
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import trackers

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


def test_gradients_of_several_batches_are_one_step(start, tmp_path):
    status, printed = start("--accumulate", "2", "--no-val")
    assert status == 0
    # The recipe's batch is 8: a step sees 3 images twice.
    assert "batch 3 x 1 device x 2 accumulated: learning rate 1e-3 -> 7.5e-4" in printed
    optimizer = files.read(tmp_path / "w/iter_2.pth")["optimizer"]
    assert {int(row["step"]) for row in optimizer["state"].values()} == {1}
    twice = ["optim_wrapper.accumulative_counts=3"]
    assert start("--accumulate", "2", settings=twice)[0] == MISTAKE


@pytest.mark.parametrize(
    ("words", "settings", "package"),
    [
        (["--log-to", "mlflow", "--log-to", "wandb"], [], "wandb"),
        ([], ["visualizer.vis_backends.0.type=TensorboardVisBackend"], "tensorboard"),
    ],
)
def test_a_tracker_that_is_not_installed_is_a_line(
    words, settings, package, start, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    for module in ("wandb", "torch.utils.tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, module, None)
    status, printed = start(*words, settings=settings)
    assert status == MISTAKE
    (line,) = printed.splitlines()
    assert f"(--log-to) needs the package {package}, which is not installed" in line
    assert f"pip install {package}." in line
    assert not (tmp_path / "w").exists()


class UsageError(Exception):
    """What wandb raises where nobody is logged in."""

    __module__ = "wandb.errors"


def test_a_tracker_that_does_not_start_is_a_sentence():
    config = Config({"visualizer": {"vis_backends": [{"type": "LocalVisBackend"}]}})
    trackers.add(config, ["wandb", "wandb"])
    assert [part.type for part in config.visualizer.vis_backends] == [
        "LocalVisBackend",
        "WandbVisBackend",
    ]
    says = r"wandb did not start: no key\. .*leave WandbVisBackend"
    with pytest.raises(InputError, match=says), trackers.refusals(config):
        raise UsageError("no key")
    with pytest.raises(ZeroDivisionError), trackers.refusals(config):
        _ = 1 / 0
