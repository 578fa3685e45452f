"""The end of a training that no longer becomes better; it can be made to go on."""

import math
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from swin_dense.errors import InputError
from swin_dense.registry import HOOKS

KEPT = "early_stop"  # in a checkpoint: the best number, and what was evaluated since


@HOOKS.register_module()
class EarlyStop(EarlyStoppingHook):
    """mmengine's, but that it survives a resume, and saves where it ends a run.

    A number as good as the best one is no improvement. A run that is resumed with `extend` has as
    many evaluations again.

    Args:
        monitor: name of the number, as in the log.
        patience: evaluations without improvement.
        rule: "greater" or "less", which of two numbers is the better one.
    """

    def __init__(self, monitor: str, patience: int, rule: str = "greater") -> None:
        least = 1e-9  # mmengine takes one that is not worse for a better one
        super().__init__(monitor, rule, least, check_finite=False, patience=patience)
        self.last = -1

    def before_train(self, runner: Runner) -> None:
        """Take up what the resumed run had seen."""
        kept = runner.message_hub.runtime_info.get(KEPT) or {}
        if kept.get("monitor") == self.monitor:
            self.best_score, self.wait_count = kept["best"], kept["waited"]
            self.last = kept["last"]
            if self.wait_count >= self.patience and runner.cfg.get("extend"):
                self.wait_count = 0

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Count an evaluation, not one that is made again; end the run after too many."""
        if self.monitor not in (metrics or {}):
            raise InputError(
                f"`early_stop`: an evaluation has no number {self.monitor!r}. Name one in "
                "default_hooks.checkpoint.save_best; it has: " + ", ".join(metrics or ()) + "."
            )
        if runner.iter != self.last:
            number = float((metrics or {})[self.monitor])
            worst = -math.inf if self.rule == "greater" else math.inf
            self._check_stop_condition(worst if math.isnan(number) else number)
        self.last = runner.iter
        runner.message_hub.update_info(
            KEPT,
            {
                "monitor": self.monitor,
                "best": float(self.best_score),
                "waited": self.wait_count,
                "last": self.last,
            },
        )
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            saved = runner.save_to_go_on(runner.iter)
            runner.logger.info(
                f"early stop: {self.monitor} has been at its best, {self.best_score:.4f}, "
                f"{self.wait_count} evaluations ago; {saved}. `resume` with `extend` goes on."
            )
