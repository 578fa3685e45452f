"""An exponential average of the weights beside those that are trained."""

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import nn

from swin_dense.openmmlab.settings import additions
from swin_dense.registry import HOOKS

KEY = "ema_state_dict"  # of a checkpoint whose state_dict is an average


@HOOKS.register_module()
class Average(EMAHook):
    """mmengine's average, of buffers too, which a short run does not begin with random weights.

    After t iterations the newest weights have a share of at least 10 / (10 + t), so that the
    average reaches over the last tenth of a run until `momentum` is the greater one.
    """

    def __init__(self, momentum: float = additions.MOMENTUM) -> None:
        super().__init__("MomentumAnnealingEMA", momentum=momentum, gamma=10, update_buffers=True)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take up the average of a resumed run; that of another start begins with its weights."""
        if runner._resume and KEY in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)

    def _swap_ema_parameters(self) -> None:
        """Change places with the trained weights, before an evaluation and after it."""
        if self.ema_model.steps:  # else there is no average yet, as where a file is only tested
            super()._swap_ema_parameters()


def averaged(runner: Any) -> nn.Module | None:
    """Return the model that a run averages, or None."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    return hooks[0].ema_model.module if hooks else None
