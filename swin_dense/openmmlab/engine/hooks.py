"""What a run does beside training: log, count memory, keep checkpoints plain."""

import resource
import sys
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from swin_dense.openmmlab.engine import averaging, trained
from swin_dense.registry import HOOKS


@HOOKS.register_module()
class Progress(LoggerHook):
    """mmengine's log lines, at least twenty in a run and about five in an evaluation."""

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.interval: int = max(1, min(self.interval, runner.max_iters // 20))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._is_shown(batch_idx, len(runner.val_dataloader)):
            runner.logger.info(runner.log_processor.get_log_after_iter(runner, batch_idx, "val")[1])

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if self._is_shown(batch_idx, len(runner.test_dataloader)):
            runner.logger.info(
                runner.log_processor.get_log_after_iter(runner, batch_idx, "test")[1]
            )

    def _is_shown(self, batch_idx: int, batches: int) -> bool:
        return (batch_idx + 1) % max(1, batches // 5) == 0


@HOOKS.register_module()
class HostMemory(Hook):
    """Without a GPU, log the peak memory of the process in MiB where GPU memory would stand."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not torch.cuda.is_available():
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            peak //= 1024**2 if sys.platform == "darwin" else 1024
            runner.message_hub.update_scalar("train/memory", peak)


@HOOKS.register_module()
class PlainCheckpoint(Hook):
    """Leave only tensors and plain values in a checkpoint, so that it loads without unpickling.

    mmengine stores its smoothing buffers, objects with functions; a resumed run refills them. The
    weights that the run started from are accounted for in meta.weights, its whole config is in
    meta.config; meta.averaged says whether state_dict is an average.
    """

    priority = "VERY_LOW"

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {}
        kept = hub["runtime_info"]
        hub["resumed_keys"] = {k: v for k, v in hub["resumed_keys"].items() if k in kept}
        for part in ("message_hub", "meta"):
            checkpoint[part] = _plain(checkpoint[part])
        if records := getattr(runner, "weights_record", None):
            checkpoint["meta"]["weights"] = records
        if left_off := getattr(runner, "left_off", None):
            checkpoint.update(left_off())
        checkpoint["meta"]["averaged"] = averaging.KEY in checkpoint
        checkpoint["meta"]["config"] = trained.write_config(runner.cfg)


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's; everything else as it is."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value
