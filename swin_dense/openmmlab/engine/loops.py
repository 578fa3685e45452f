"""mmengine's two ways to train, entered where a checkpoint left them: the next iteration is the one
that would have come."""

from contextlib import closing
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn

from swin_dense.openmmlab.engine import draws
from swin_dense.openmmlab.engine.recorder import NotFiniteError, Recorder
from swin_dense.registry import LOOPS

OURS = {
    "IterBasedTrainLoop": "swin_dense.IterationLoop",
    "EpochBasedTrainLoop": "swin_dense.EpochLoop",
}


def with_ours(loop: Any) -> Any:
    """Return the config of a training loop, mmengine's as ours; others stay as they are."""
    if not isinstance(loop, dict):
        return loop
    kind = loop.get("type", "EpochBasedTrainLoop" if loop.get("by_epoch") else None)
    if kind not in OURS:
        return loop
    return {**{k: v for k, v in loop.items() if k != "by_epoch"}, "type": OURS[kind]}


class _Recorded:
    """A loop whose iterations may end with numbers that are not finite."""

    def run_iter(self, *given: Any) -> None:
        """Train on a batch; if its gradients are not finite, do as the recorder says."""
        try:
            super().run_iter(*given)  # type: ignore[misc]
        except NotFiniteError:
            runner: Any = self.runner  # type: ignore[attr-defined]
            next(hook for hook in runner.hooks if isinstance(hook, Recorder)).not_finite(runner)
            place = given[0] if len(given) > 1 else self._iter  # type: ignore[has-type]
            runner.call_hook("after_train_iter", batch_idx=place, data_batch=given[-1], outputs={})
            self._iter = self._iter + 1  # type: ignore[has-type]

    def _evaluate_if_due(self, done: int, last: int) -> None:
        """Evaluate if it is time to, after `done` of `last` iterations or epochs."""
        loop: Any = self
        loop._decide_current_val_interval()
        if loop.runner.val_loop is None or done < loop.val_begin:
            return
        if done % loop.val_interval == 0 or done == last:
            loop.runner.evaluate()


@LOOPS.register_module()
class IterationLoop(_Recorded, IterBasedTrainLoop):
    """Train by iterations."""

    def run(self) -> nn.Module:
        """Train to the end; an evaluation that was due when the run was left comes first."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        batches = draws.endless(self.dataloader, self._iter)
        runner.take_up()
        if self._iter:
            self._evaluate_if_due(self._iter, self._max_iters)
        with closing(batches):
            while self._iter < self._max_iters and not self.stop_training:
                runner.model.train()
                self.run_iter(next(batches))
                self._evaluate_if_due(self._iter, self._max_iters)
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model


@LOOPS.register_module()
class EpochLoop(_Recorded, EpochBasedTrainLoop):
    """Train by epochs."""

    def run(self) -> nn.Module:
        """Train to the end; an evaluation that was due when the run was left comes first."""
        runner = self.runner
        runner.call_hook("before_train")
        if self._iter and not self._seen():
            runner.take_up()
            self._evaluate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._evaluate_if_due(self._epoch, self._max_epochs)
        runner.call_hook("after_train")
        return runner.model

    def run_epoch(self) -> None:
        """Train the rest of an epoch."""
        runner, seen = self.runner, self._seen()
        runner.call_hook("before_train_epoch")
        runner.model.train()
        batches = draws.batches(self.dataloader, seen)
        runner.take_up()
        with closing(batches):
            for place, batch in enumerate(batches, start=seen):
                self.run_iter(place, batch)
        runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _seen(self) -> int:
        """Return how many batches of this epoch were trained on, 0 if epochs had another length."""
        seen = self._iter - self._epoch * len(self.dataloader)
        return seen if 0 <= seen <= len(self.dataloader) else 0
