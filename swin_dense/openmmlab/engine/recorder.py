"""Notice the first number of a training that is not finite, say where it arose, keep the batch."""

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from swin_dense.checkpoints import files
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import diagnosis, generators, plain_batches, run_folder, trained
from swin_dense.openmmlab.engine.amp import Bfloat16OptimWrapper
from swin_dense.openmmlab.engine.diagnosis import Finding
from swin_dense.registry import HOOKS

POLICIES = ("stop", "skip", "back")
MOST = 10  # times that a run goes on nevertheless
REMEDY = (
    "Lower optim_wrapper.optimizer.lr, add optim_wrapper.clip_grad.max_norm=1, or use bf16 "
    "instead of fp16 (`amp`); then `resume` from the last checkpoint."
)


class NotFiniteError(ArithmeticError):
    """Gradients that must not reach the weights."""


@HOOKS.register_module(name=["Recorder", "FiniteLoss"])  # the second, older name is in configs
class Recorder(Hook):
    """Look at gradients before each step of the optimizer, and at all that is saved.

    Args:
        policy: what happens then. "stop" ends the run; "skip" leaves the batch out, and all whose
            gradients were gathered with its; "back" goes on with the weights and the optimizer of
            the last checkpoint. Both at most ten times.
        interval: iterations between two looks at the terms of the loss.
    """

    def __init__(self, policy: str = "stop", interval: int = 10):
        if policy not in POLICIES:
            raise InputError(f"`on_not_finite`: one of {', '.join(POLICIES)}, not {policy!r}.")
        self.policy, self.interval = policy, interval
        self.times = 0
        self._watched: Any = None  # the optimizer whose steps are looked at

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep what the iteration begins with."""
        self._begun = generators.state()
        samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
        self._batch = data_batch
        if samples:  # what follows pads label maps in them
            self._batch = {**data_batch, "data_samples": [one.clone() for one in samples]}
        if self.policy != "stop":
            self._buffers = [(b, b.clone()) for b in _buffers(runner)]
        optimizer = getattr(runner.optim_wrapper, "optimizer", None)
        if optimizer is not None and optimizer is not self._watched:
            self._watched = optimizer
            optimizer.register_step_pre_hook(_require_finite)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Look at the terms of the loss; a broken one may wait for the optimizer's step."""
        last = runner.iter + 1 == runner.max_iters
        now = last or self.every_n_train_iters(runner, self.interval)
        waits = getattr(runner.optim_wrapper, "_accumulative_counts", 1) > 1
        if waits or (now and self.policy == "stop"):  # else the step was a good one
            terms = {k: v for k, v in outputs.items() if isinstance(v, Tensor)}
            if names := diagnosis.broken(terms):
                self.not_finite(runner, f"loss: {', '.join(names)}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to keep what no run can go on from."""
        optimizer = getattr(runner.optim_wrapper, "optimizer", None)
        if found := diagnosis.of_state(_model(runner), optimizer):
            raise InputError(
                f"training: at iteration {runner.iter + 1} {found.text}; the checkpoint was not "
                f"written. {REMEDY}"
            )

    def not_finite(self, runner: Any, terms: str = "") -> None:
        """Say what happened in the iteration, keep it, and do as the policy says.

        Args:
            terms: of the loss that are not finite, if these were looked at.

        Raises:
            InputError: the run ends.
        """
        self.times += 1
        found, text = self._record(runner, terms)
        if self.policy == "stop" or self.times > MOST:
            advice = REMEDY
            if found.kind == "input":
                advice = "Look at these images and at the steps of train_pipeline."
            often = f" It happened {self.times} times; the run ends." if self.times > MOST else ""
            raise InputError(f"{text}{often} {advice}")
        for buffer, before in self._buffers:
            buffer.copy_(before)
        runner.optim_wrapper.zero_grad()
        if self.policy == "back":
            last = run_folder.newest(Path(runner.work_dir), runner.logger.info)
            if last is None:
                raise InputError(f"{text} There is no checkpoint to go back to. {REMEDY}")
            runner.go_back(last)
            text += f" Going on with the weights of {last.path.name}."
        else:
            text += " The batch is left out."
        runner.logger.warning(f"{text} ({self.times} of at most {MOST} times)")

    def _record(self, runner: Any, terms: str) -> tuple[Finding, str]:
        """Compute the iteration once more, write a file that shows it, and word what was found."""
        model, after = _model(runner), generators.state()
        generators.restore(self._begun)
        found = diagnosis.of_iteration(
            model, self._batch, lambda: runner.optim_wrapper.optim_context(runner.model)
        )
        generators.restore(after)
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[-1]
        text = (
            f"training: at iteration {runner.iter + 1} {found.text} (images "
            f"{', '.join(diagnosis.images(self._batch))}; learning rate {rate:.3g}"
            f"{'; ' + terms if terms else ''})."
        )
        rank = f"_rank{runner.rank}" if runner.world_size > 1 else ""
        place = Path(runner.work_dir) / f"not_finite_{runner.iter + 1}{rank}.pth"
        with files.replaced(place) as temporary:
            torch.save(
                {
                    "state_dict": {k: v.cpu() for k, v in model.state_dict().items()},
                    "meta": {
                        "config": trained.write_config(runner.cfg),
                        "found": found.text,
                        "precision": _precision(runner.optim_wrapper),
                    },
                    "generators": self._begun,
                    "batch": plain_batches.plain(self._batch),
                },
                temporary,
            )
        return found, f"{text} It is kept in {place}; tools/replay.py shows it again."


def _precision(wrapper: Any) -> str | None:
    if isinstance(wrapper, Bfloat16OptimWrapper):
        return "bfloat16"
    return "float16" if isinstance(wrapper, AmpOptimWrapper) else None


def _model(runner: Any) -> Any:
    return getattr(runner.model, "module", runner.model)


def _buffers(runner: Any) -> list[Tensor]:
    return [buffer for buffer in _model(runner).buffers() if buffer.is_floating_point()]


def _require_finite(optimizer: torch.optim.Optimizer, *args: Any) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    gradients = [gradient for gradient in gradients if gradient is not None]
    if not gradients or torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all():
        return
    if not all(torch.isfinite(one).all() for one in gradients):  # else squares were too large
        raise NotFiniteError
