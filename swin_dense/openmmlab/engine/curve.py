"""Draw the course of a training while it runs."""

from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from swin_dense.registry import HOOKS
from swin_dense.report import curves


@HOOKS.register_module()
class Curve(Hook):
    """Write curve.png and training.html into the work dir.

    At each evaluation and checkpoint, and when the training ends; they show what was logged by
    then.
    """

    priority = "VERY_LOW"  # after the logger

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        _write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        _write(runner)

    def after_train(self, runner: Runner) -> None:
        _write(runner)


@master_only
def _write(runner: Runner) -> None:
    name = runner.cfg.filename
    curves.write(Path(runner.work_dir), Path(name).stem if name else "run")
