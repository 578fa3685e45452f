"""A resumed run is the run: its losses, bit for bit, and the weights at its end."""

import json
import os
import signal

import pytest
import torch
from conftest import CONFIGS, SMALL
from mmengine.config import ConfigDict
from mmengine.hooks import Hook

from swin_dense.checkpoints import files
from swin_dense.cli.options import value
from swin_dense.errors import StoppedError
from swin_dense.openmmlab.engine import run
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import image_sizes, places
from swin_dense.registry import HOOKS


class Losses(Hook):
    """Write the losses and images of each iteration, and the numbers of each evaluation."""

    def __init__(self, file):
        self.file = file

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        losses = {name: value.item().hex() for name, value in outputs.items()}
        images = [float(image.float().mean()).hex() for image in data_batch["inputs"]]
        self.write({"iter": runner.iter + 1, "losses": losses, "images": images})

    def after_val_epoch(self, runner, metrics=None):
        self.write({"iter": runner.iter, "metrics": {k: str(v) for k, v in metrics.items()}})

    def write(self, line):
        with open(self.file, "a") as file:
            file.write(json.dumps(line) + "\n")


class Signal(Hook):
    """Send this process a signal in an iteration or in an evaluation."""

    def __init__(self, number, iteration=None, evaluation=None):
        self.number, self.iteration, self.evaluation = number, iteration, evaluation

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            for _ in range(2):  # as a batch system and torchrun both pass it on
                os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.evaluation:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module", autouse=True)
def _known():
    """Other tests look at all that is registered."""
    for hook in (Losses, Signal):
        HOOKS.register_module(module=hook)
    yield
    for hook in (Losses, Signal):
        del HOOKS.module_dict[hook.__name__]


def options(stated):
    pairs = (text.split("=", 1) for text in SMALL[SMALL.index("--cfg-options") + 1 :])
    return {**{key: value(text) for key, text in pairs}, **stated}


def trained(folder, task, data, stated, iterations=None, resume=None, hooks=()):
    """Return what a run wrote down and its folder."""
    config = configs.load(str(CONFIGS[task]), options(stated))
    config.work_dir, config.launcher = str(folder), "none"
    config.randomness = dict(seed=3)
    places.complete_data(config, ("train", "val"), None, str(data.root), None)
    image_sizes.scale_images(config, (96, 64))
    if iterations:
        run.shorten(config, iterations, tuple(stated))
    config.custom_hooks = [
        ConfigDict(type="swin_dense.Losses", file=str(folder) + ".jsonl"),
        *map(ConfigDict, hooks),
        *(config.get("custom_hooks") or []),
    ]
    if resume:
        config.resume, config.load_from = True, str(resume)
    torch.manual_seed(99)  # of the process, which a run does not go by
    run.train(config, say=lambda text: None)
    return [json.loads(line) for line in open(str(folder) + ".jsonl")]


SAVING = {"default_hooks.checkpoint.by_epoch": False}
CASES = {
    "iterations": (
        "detection",
        {**SAVING, "default_hooks.checkpoint.interval": 2, "train_cfg.val_interval": 2},
        4,
        2,
    ),
    "in an epoch, two processes load": (
        "detection",
        {
            **SAVING,
            "train_cfg.max_epochs": 2,
            "train_cfg.val_interval": 1,
            "train_dataloader.num_workers": 2,
            "default_hooks.checkpoint.interval": 4,
        },
        None,
        4,
    ),
    "gradients half gathered, an average, 16 bits": (
        "segmentation",
        {
            **SAVING,
            "default_hooks.checkpoint.interval": 3,
            "train_cfg.val_interval": 3,
            "optim_wrapper.accumulative_counts": 2,
            "optim_wrapper.type": "swin_dense.Bfloat16OptimWrapper",
            "custom_hooks": [{"type": "swin_dense.Average", "momentum": 0.1}],
        },
        6,
        3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_is_the_run(name, small_shapes, tmp_path):
    task, stated, iterations, left = CASES[name]
    whole = trained(tmp_path / "whole", task, small_shapes, stated, iterations)
    start = tmp_path / f"whole/iter_{left}.pth"
    rest = trained(tmp_path / "rest", task, small_shapes, stated, iterations, resume=start)
    expected = [row for row in whole if row["iter"] > left - ("metrics" in row)]
    assert expected
    assert rest == expected
    last = max(row["iter"] for row in whole)
    one, other = (files.read(tmp_path / f"{run}/iter_{last}.pth") for run in ("whole", "rest"))
    for part in ("state_dict", "ema_state_dict"):
        for key, tensor in one.get(part, {}).items():
            assert torch.equal(tensor, other[part][key]), key


@pytest.mark.parametrize(
    ("kept", "says"), [([], "keeps no random numbers"), ([{}, {}], "is of 2 processes")]
)
def test_a_run_that_cannot_be_the_same_says_so(kept, says, small_shapes, tmp_path):
    stated = {**SAVING, "default_hooks.checkpoint.interval": 1, "val_evaluator": None}
    stated.update(val_cfg=None, val_dataloader=None)
    trained(tmp_path / "a", "segmentation", small_shapes, stated, 2)
    checkpoint = files.read(tmp_path / "a/iter_1.pth")
    torch.save({**checkpoint, "generators": kept}, tmp_path / "old.pth")
    trained(tmp_path / "b", "segmentation", small_shapes, stated, 2, resume=tmp_path / "old.pth")
    log = next((tmp_path / "b").glob("*/*.log")).read_text()
    assert log.count(f"the checkpoint {says}") == 1


@pytest.mark.parametrize("place", ["iteration", "evaluation"])
def test_a_signal_saves_the_run_that_then_goes_on(place, small_shapes, tmp_path):
    """In an evaluation of an average, too: what is saved is the model."""
    stated = {
        **CASES["gradients half gathered, an average, 16 bits"][1],
        "train_cfg.val_interval": 2,
    }
    stated["default_hooks.checkpoint.interval"] = 3
    whole = trained(tmp_path / "whole", "segmentation", small_shapes, stated, 4)
    cut = {"type": "swin_dense.Signal", "number": int(signal.SIGTERM), place: 2}
    with pytest.raises(StoppedError) as stopped:
        trained(tmp_path / "cut", "segmentation", small_shapes, stated, 4, hooks=[cut])
    saved = tmp_path / "cut/iter_2.pth"
    assert stopped.value.saved == f"iteration 2 is saved as {saved}"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    rows = trained(tmp_path / "cut", "segmentation", small_shapes, stated, 4, resume=saved)
    assert rows == whole
    left = {path.name for path in (tmp_path / "cut").glob("*.pth")}
    assert left == {"iter_3.pth", "iter_4.pth"}  # a checkpoint of the run's own replaced it
