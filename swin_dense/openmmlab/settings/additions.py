"""What a user may add to a training by one word: written into the config, and read from it.

A checkpoint carries the config of its run, so that what a resumed run adds can be compared.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.errors import InputError
from swin_dense.task import Task

AVERAGES = ("EMAHook", "mmengine.EMAHook", "mmdet.EMAHook", "swin_dense.Average")
STOPS = ("swin_dense.EarlyStop", "EarlyStoppingHook", "mmengine.EarlyStoppingHook")
MAIN = {  # the number of a task that a run is judged by
    Task.DETECTION: "coco/bbox_mAP",
    Task.INSTANCES: "coco/segm_mAP",
    Task.PANOPTIC: "panoptic/PQ",
    Task.SEMANTIC: "mIoU",
}
MOMENTUM = 0.0002  # mmengine's: an average of the last 5000 iterations


def average(config: Config, momentum: float) -> None:
    """Have an average of the weights kept, evaluated and saved.

    Args:
        momentum: share of the weights of an iteration in the average, between 0 and 1.

    Raises:
        InputError: the config states an average already.
    """
    if hook := _hook(config, AVERAGES):
        raise InputError(
            f"`ema` {momentum}: the config's custom_hooks average the weights already "
            f"({hook['type']}). Leave out one of the two."
        )
    hook = ConfigDict(type="swin_dense.Average", momentum=momentum)
    config.custom_hooks = [*(config.get("custom_hooks") or []), hook]


def accumulate(config: Config, batches: int) -> None:
    """Have the gradients of several batches added up before a step of the optimizer."""
    config.optim_wrapper["accumulative_counts"] = batches


def early_stop(config: Config, patience: int) -> str:
    """Have the run end after `patience` evaluations without improvement; return a line about it.

    What counts is the number that the config chooses the best checkpoint by, else the task's.

    Raises:
        InputError: the run evaluates too seldom for that, or has an early end already.
    """
    if hook := _hook(config, STOPS):
        raise InputError(
            f"`early_stop` {patience}: the config's custom_hooks end the run already "
            f"({hook['type']}). Leave out one of the two."
        )
    if not config.get("val_dataloader"):
        raise InputError("`early_stop` goes by evaluations, and this run makes none.")
    loop = config.train_cfg
    unit = "iterations" if loop.get("max_iters") else "epochs"
    length, each = loop.get("max_iters") or loop["max_epochs"], loop.get("val_interval", 1)
    made = -(-length // each)
    if made <= patience:
        raise InputError(
            f"`early_stop` {patience}: this run makes {made} evaluations in {length} {unit}, so it "
            f"could not end early. Evaluate more often: train_cfg.val_interval, now {each} {unit}."
        )
    saving = (config.get("default_hooks") or {}).get("checkpoint") or {}
    best = saving.get("save_best")
    best = best if isinstance(best, str) else (best or ["auto"])[0]
    number = MAIN[Task.of(config)] if best == "auto" else best
    hook = ConfigDict(
        type=STOPS[0], monitor=number, patience=patience, rule=saving.get("rule") or "greater"
    )
    config.custom_hooks = [*(config.get("custom_hooks") or []), hook]
    return f"early stop: after {patience} evaluations without a better {number}"


def stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config adds: name of the setting -> value, None where it adds nothing."""
    mean = _hook(config, AVERAGES)
    return {
        "ema": mean and mean.get("momentum", MOMENTUM),
        "accumulate": (config.get("optim_wrapper") or {}).get("accumulative_counts", 1),
        "early_stop": (_hook(config, STOPS) or {}).get("patience"),
    }


def changes(carried: Any, now: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each addition that the config a checkpoint carries has otherwise."""
    before = carried.get("values") if isinstance(carried, Mapping) else None
    if not isinstance(before, Mapping):
        return []
    old, new = stated(before), stated(now)
    return [
        f"`{name}` {_shown(old[name])} -> {_shown(new[name])}"
        for name in new
        if old[name] != new[name]
    ]


def _shown(value: Any) -> str:
    return "off" if value in (None, False) else "on" if value is True else str(value)


def _hook(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the config of the first custom hook of one of these types, or None."""
    hooks = config.get("custom_hooks") or []
    return next((h for h in hooks if isinstance(h, Mapping) and h.get("type") in names), None)
