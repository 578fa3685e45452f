"""Train and test a complete config: build the runner, start it from the asked weights, report."""

import itertools
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import broadcast_object_list

from swin_dense.checkpoints import files
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.metrics import table_name
from swin_dense.openmmlab.engine import averaging, ends, trained
from swin_dense.openmmlab.engine.reporting import Watch
from swin_dense.openmmlab.engine.runner import DenseRunner, bare, warms_up
from swin_dense.openmmlab.engine.torch_errors import explained
from swin_dense.openmmlab.settings import readers, trackers
from swin_dense.peer_processes import watched

_RUNS = itertools.count()
WARM_UP_SHARE = 0.1  # of a shortened run
ALWAYS = tuple(f"swin_dense.{hook}" for hook in ("HostMemory", "PlainCheckpoint", "Curve"))


@dataclass
class Tested:
    """Hold the numbers of one evaluation: overall, and by class; and of which weights."""

    numbers: dict[str, float]
    per_class: dict[str, dict[str, float]]
    weights: list[dict[str, Any]]


def shorten(config: Config, iterations: int, stated: Collection[str] = ()) -> list[str]:
    """Make the run `iterations` long and scale its schedule to it.

    A warm-up stays as it is, but takes at most a tenth of the run; nothing else shortens one.

    Args:
        stated: dotted keys of the config that the user states for this run; an interval among
            them counts iterations.

    Returns:
        a line for a warm-up that became shorter, and one for each interval that is not used.

    Raises:
        InputError: another length is stated, too, or saving by epochs.
    """
    _refuse_other_lengths(config, stated)
    if iterations < 1:
        raise InputError(f"`max_iters` counts iterations: at least 1, not {iterations}.")
    epochs = config.train_cfg.get("max_epochs")
    schedule = config.get("param_scheduler") or []
    for part in schedule:
        warm = warms_up(part)
        by_epoch = part.pop("by_epoch", True)
        part.pop("convert_to_iter_based", None)
        part["by_epoch"] = False
        if warm:
            continue
        if epochs and not by_epoch:  # counted in iterations of a length nobody stated
            whole = part.get("end") or part.get("T_max") or iterations
        else:
            whole = epochs or config.train_cfg["max_iters"]
        for key in ("begin", "end", "T_max", "milestones"):
            if key in part and not (key == "begin" and not by_epoch):  # a warm-up ends there
                part[key] = _scaled(part[key], iterations / whole)
    lines = _shorten_warm_ups(schedule, iterations)
    evaluating, more = _evaluate_each(config, iterations, "train_cfg.val_interval" in stated)
    lines += more
    config.train_cfg = ConfigDict(
        type="IterBasedTrainLoop", max_iters=iterations, val_interval=evaluating
    )
    sampler = config.train_dataloader.get("sampler") or {}
    if sampler.get("type", "DefaultSampler") == "DefaultSampler":  # others are kept, as is a choice
        endless = ConfigDict(type="InfiniteSampler", shuffle=sampler.get("shuffle", True))
        config.train_dataloader.sampler = endless
    hooks = config.setdefault("default_hooks", ConfigDict())
    saving = hooks.setdefault("checkpoint", ConfigDict(type="CheckpointHook"))
    often = max(500, iterations // 10)
    kept = "default_hooks.checkpoint.interval" in stated or not saving.get("by_epoch", True)
    asked = saving.get("interval", often) if kept else often
    saving.update(by_epoch=False, interval=min(asked, iterations))
    hooks.setdefault("logger", ConfigDict(type="swin_dense.Progress"))["log_metric_by_epoch"] = (
        False
    )
    config.log_processor = dict(config.get("log_processor") or {}, by_epoch=False)
    return lines


def _refuse_other_lengths(config: Config, stated: Collection[str]) -> None:
    for key in ("max_epochs", "max_iters"):
        if f"train_cfg.{key}" in stated:
            raise InputError(
                f"`max_iters` and train_cfg.{key} both state the length of the run. Leave one out."
            )
    saves_by_epoch = _checkpoint_hook(config).get("by_epoch", True)
    if "default_hooks.checkpoint.by_epoch" in stated and saves_by_epoch:
        raise InputError(
            "`max_iters` counts iterations, so default_hooks.checkpoint.by_epoch=True has no "
            "epochs to count. State default_hooks.checkpoint.interval, in iterations."
        )


def _checkpoint_hook(config: Config) -> Mapping[str, Any]:
    return (config.get("default_hooks") or {}).get("checkpoint") or {}


def _evaluate_each(config: Config, iterations: int, stated: bool) -> tuple[int, list[str]]:
    """Return after how many iterations to evaluate, and a line if a stated number is not used."""
    asked = config.train_cfg.get("val_interval", 1)
    if not config.get("val_dataloader"):
        return iterations, []
    if stated and asked <= iterations:
        return asked, []
    if stated:
        why = "is longer than this run"
    else:
        why = "is of a run of the config's length; state it in iterations to evaluate more often"
    only = f"evaluation: after iteration {iterations} alone"
    return iterations, [f"{only} (train_cfg.val_interval={asked} {why})"]


def _shorten_warm_ups(schedule: list[ConfigDict], iterations: int) -> list[str]:
    """Keep each warm-up within a tenth of the run; what begins at its end moves with it."""
    longest = int(iterations * WARM_UP_SHARE)
    lines = []
    for part in [part for part in schedule if warms_up(part) and part.get("end", 0) > longest]:
        lines.append(
            f"warm-up: {part['end']} -> {longest} iterations "
            f"(rule: at most a tenth of the run, {iterations} iterations)"
        )
        for other in schedule:
            if other.get("begin") == part["end"]:
                other["begin"] = longest
        part["end"] = longest
        if longest < 2:  # from its first factor to 1 takes two iterations
            schedule.remove(part)
    return lines


def _scaled(points: Any, factor: float) -> Any:
    if isinstance(points, list | tuple):
        return [_scaled(point, factor) for point in points]
    return max(1, round(points * factor)) if points else 0


def use_amp(config: Config, kind: str) -> None:
    """Train in mixed precision: "bf16" anywhere, "fp16" with loss scaling on a GPU."""
    if kind == "fp16":
        if not torch.cuda.is_available():
            raise InputError("`amp` fp16 needs a GPU, this machine has none. Use bf16.")
        config.optim_wrapper.update(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")
    else:
        config.optim_wrapper.type = "swin_dense.Bfloat16OptimWrapper"


def train(config: Config, pretrained: str | None = None, say: Any = print) -> Path:
    """Run the training; return the folder with its checkpoints, log and half-precision weights.

    Args:
        pretrained: weights for the backbone alone; replaces the config's init_cfg.

    Raises:
        InputError: the config cannot be run, or the weights do not fit.
        StoppedError: a signal asked the run to end, and it is saved.
    """
    backbone = config.model.get("backbone")
    if backbone is None and (pretrained or config.get("pretrained")):
        raise InputError(
            f"`pretrained` starts model.backbone, and {config.model.type} has none. Start the "
            "whole model with `load_from`, or a part of it with an init_cfg."
        )
    start: Any = (backbone or {}).get("init_cfg")
    alone = isinstance(start, dict) and set(start) == {"type", "checkpoint"}
    if backbone and (alone or pretrained or config.get("resume")):
        backbone.pop("init_cfg", None)  # loaded by us where nothing replaces it
    hooks = list(config.get("custom_hooks") or [])
    for hook in hooks:
        if not (isinstance(hook, Mapping) and "type" in hook):
            raise InputError(
                f"custom_hooks: each names its class, as in [{{'type': 'EMAHook'}}]; got {hook!r}."
            )
    there = {hook["type"]: hook for hook in hooks}  # a config written by a run has them already
    recorder = there.get("swin_dense.Recorder") or there.get("swin_dense.FiniteLoss")
    if recorder is None:
        recorder = ConfigDict(type="swin_dense.Recorder")
        hooks.append(recorder)
    if policy := config.get("on_not_finite"):
        recorder["policy"] = policy
    config.custom_hooks = hooks + [ConfigDict(type=name) for name in ALWAYS if name not in there]
    config.pretrained = pretrained or config.get("pretrained")
    if alone and not config.pretrained and start["type"] == "Pretrained":
        config.pretrained = start["checkpoint"]
    known = (config.pretrained, config.get("load_from"), config.get("resume"))
    if backbone and not any((*known, backbone.get("init_cfg"))):
        say(
            "backbone: random weights. The papers start from ImageNet weights; give them as "
            "`pretrained` to come near their results."
        )
    with explained():
        runner = _runner(config)
    with ends.listening() as leave:
        runner.register_hook(leave)
        try:
            with explained():
                runner.train()
        except InputError as error:
            error.iterations = runner.iter
            raise
        if runner.rank == 0:
            _write_half(runner)
    return Path(runner.work_dir)


def test(config: Config, checkpoint: str, watch: Watch | None) -> Tested:
    """Evaluate a checkpoint on the config's test split; `watch` gathers what a report shows."""
    config.load_from, config.resume = checkpoint, False
    for name in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        config.pop(name, None)
    with explained():
        runner = _runner(config)
        if watch:
            watch.follow(runner)
        numbers = runner.test()
        if watch:
            watch.finish(runner)
    per_class: dict[str, dict[str, float]] = {}
    for metric in runner.test_evaluator.metrics:
        per_class.update(getattr(metric, "per_class", {}))
    plain = {table_name(name): float(value) for name, value in numbers.items()}
    return Tested(plain, per_class, runner.weights_record)


def write_numbers(path: Path, tested: Tested, about: Mapping[str, Any]) -> None:
    """Write metrics.json: the numbers, those of each class, and what was evaluated."""
    with files.replaced(path) as temporary:
        content = {**about, "metrics": tested.numbers, "per_class": tested.per_class}
        temporary.write_text(json.dumps(_without_nan(content), indent=2) + "\n")


def _runner(config: Config) -> DenseRunner:
    """Build the runner under a name of its own: mmengine keeps one log for each name.

    Its processes, if they are several, are watched from now on, see `peer_processes`.
    """
    watched.wait_at_most(config.get("peer_timeout", watched.SECONDS))
    stem = Path(config.filename).stem if config.filename else "run"
    readers.name_pipelines(config)
    stem = config.get("experiment_name") or stem
    config.experiment_name = f"{stem}_{os.getpid()}_{next(_RUNS)}"
    trackers.require_installed(config)
    with trackers.refusals(config):
        runner = DenseRunner.from_cfg(config)
    watched.meet(broadcast_object_list)
    return runner


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value


def _write_half(runner: DenseRunner) -> None:
    """Write the weights in half precision, with the config and the classes of the run.

    Of a run that averages them it is the average, as in its checkpoints.
    """
    mean = averaging.averaged(runner)
    classes = {
        name: list(names)
        for name, names in runner.train_dataloader.dataset.metainfo.items()
        if name in ("classes", "thing_classes")
    }
    meta = {
        **classes,
        "iterations": runner.iter,
        "seed": runner.seed,
        "config": trained.write_config(runner.cfg),
        "weights": runner.weights_record,
        "averaged": mean is not None,
    }
    files.write_weights(
        Path(runner.work_dir) / "weights_fp16.safetensors",
        (bare(runner.model) if mean is None else mean).state_dict(),
        meta,
        torch.float16,
    )
