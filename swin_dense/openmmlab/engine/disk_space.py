"""Whether a run's checkpoints fit on the disk, told before one is begun."""

import shutil
from pathlib import Path

import torch
from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from swin_dense.errors import InputError

_SPARE = 1.02  # names, and what a file system needs beside the numbers


def checkpoint_size(runner: Runner) -> int:
    """Return about how many bytes a checkpoint takes: weights, their average, optimizer's state.

    Before its first step an optimizer has no state; then two numbers count for each weight where
    it has betas, as Adam does, and one where it has momentum.
    """
    weights = _bytes(runner.model.state_dict())
    averages = sum(isinstance(hook, EMAHook) for hook in runner.hooks)
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    state = 0
    if optimizer is not None:
        state = sum(_bytes(of) for of in optimizer.state.values())
    if optimizer is not None and not state:
        for group in optimizer.param_groups:
            copies = 2 if "betas" in group else 1 if group.get("momentum") else 0
            state += copies * sum(p.numel() * p.element_size() for p in group["params"])
    return int(_SPARE * (weights * (1 + averages) + state))


def require(runner: Runner, folder: Path) -> None:
    """Raise where the next checkpoint has no room.

    Raises:
        InputError: says how much it takes, and how much is left.
    """
    needed, free = checkpoint_size(runner), shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"`work_dir`: a checkpoint of this run takes {_in_words(needed)}, and {folder} has "
            f"{_in_words(free)} left. Free some, or give a `work_dir` on another disk."
        )


def tell(runner: Runner, folder: Path, kept: int) -> None:
    """Say at the start when the last one fits, but not all that are kept.

    Args:
        kept: how many checkpoints lie there at once, the one that is written included; 0 if all
            are kept.
    """
    needed, free = checkpoint_size(runner), shutil.disk_usage(folder).free
    if needed * max(kept, 2) > free:
        print_log(
            f"work_dir: a checkpoint takes {_in_words(needed)}, "
            f"{kept or 'several'} of them lie there at once, and {folder} has "
            f"{_in_words(free)} left. It may become full.",
            "current",
        )


def _bytes(state: dict) -> int:
    tensors = (x for x in state.values() if isinstance(x, torch.Tensor))
    return sum(x.numel() * x.element_size() for x in tensors)


def _in_words(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
