"""mmengine's runner with a quiet console, words about its rates, and weights that fit."""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from swin_dense.checkpoints import files, ledger
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import (
    averaging,
    draws,
    generators,
    loops,
    parameters,
    saving,
    short_lines,
    slurm,
    weights,
    workers,
)
from swin_dense.openmmlab.engine.parameters import short
from swin_dense.openmmlab.settings import additions, building, readers
from swin_dense.registry import RUNNERS

PLAIN = "LogProcessor"  # mmengine's
LONG_WARM_UP = 0.5  # of the run; the papers' are 0.002 to 0.01 of theirs


def bare(model: Any) -> Any:
    """Return the model itself, without what distributed training wraps around it."""
    return getattr(model, "module", model)


@RUNNERS.register_module()
class DenseRunner(Runner):
    """Train and test what a complete config says; see `swin_dense.openmmlab.engine.run`."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.earlier_weights: list[dict[str, Any]] = []  # of the run that this one resumes
        self._batch = 0  # images of a step of the optimizer, in all processes; set by scale_lr
        self._left: dict[str, Any] | None = None  # of the resumed checkpoint, for take_up
        self.generator_states: list[generators.State] = []  # of each process, for a checkpoint
        self._saved: tuple[int, Path] = (-1, Path())  # after how many iterations last, and where
        self._evaluating: list[generators.State] | None = None  # the same before an evaluation
        super().__init__(*args, **kwargs)
        self._console(logging.INFO)

    def train(self) -> nn.Module:
        """Train, without a console line for each parameter's options."""
        self._console(logging.WARNING)
        return super().train()

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """Log the environment, the config and the hooks to the file, not to the console."""
        self.logger = super().build_logger(*args, **kwargs)
        self._console(logging.WARNING)
        return self.logger

    def _console(self, level: int) -> None:
        for handler in self.logger.handlers:
            if type(handler) is logging.StreamHandler and self.rank == 0:
                handler.setLevel(level)
                handler.addFilter(short_lines.concerns_the_user)
                handler.setFormatter(short_lines.ForConsole())

    def build_log_processor(self, log_processor: Any) -> Any:
        """Build what words the log, mmengine's as ours: short lines for the console."""
        if isinstance(log_processor, dict) and log_processor.get("type", PLAIN) == PLAIN:
            log_processor = {**log_processor, "type": short_lines.ShortLines}
        return super().build_log_processor(log_processor)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; an InputError says which part refuses what it is given."""
        return building.build(MODELS, model, "model") if isinstance(model, dict) else model

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """Build a loader whose pipeline reads files by our readers, see `settings.readers`.

        An InputError says what the data set or a step of its pipeline refuses.
        """
        dataset = dataloader.get("dataset") if isinstance(dataloader, dict) else None
        kind = dataset.get("type") if isinstance(dataset, dict) else dataset
        with building.refusals(f"the data loader of {kind}"):
            built = Runner.build_dataloader(readers.with_ours(dataloader), *args, **kwargs)
        return workers.watch(built)

    def build_evaluator(self, evaluator: Any) -> Any:
        """Build the evaluators, mmdet's CocoMetric as the one that reads every file we approve.

        Several processes gather their results in the work dir, which all machines share.
        """
        several = isinstance(evaluator, list | tuple)
        parts = [repaired(part) for part in evaluator] if several else repaired(evaluator)
        built = super().build_evaluator(parts)
        for metric in built.metrics:
            metric.collect_dir = str(Path(self.work_dir) / "gathered")
        return built

    def build_train_loop(self, loop: Any) -> Any:
        """Build the loop, mmengine's as ours, over images whose order a resumed run can enter."""
        built = super().build_train_loop(loops.with_ours(loop))
        draws.enter(built.dataloader, self.seed or 0)
        return built

    def register_default_hooks(self, hooks: Any = None) -> None:
        """Register the hooks that every run has."""
        super().register_default_hooks(saving.with_ours(hooks))

    def left_off(self) -> dict[str, Any]:
        """Return what take_up restores: each process' generators, and gradients half gathered."""
        wrapper, gradients = self.optim_wrapper, {}
        if wrapper._inner_count % wrapper._accumulative_counts:
            for name, parameter in bare(self.model).named_parameters():
                if parameter.grad is not None:
                    gradients[name] = parameter.grad.cpu()
        return {"generators": self.generator_states, "gradients": gradients}

    def take_up(self) -> None:
        """Have generators and half gathered gradients be what they were at the checkpoint."""
        kept, self._left = self._left, None
        if kept is None:
            return
        states = kept.get("generators", [])
        if len(states) == self.world_size:
            generators.restore(states[self.rank])
        else:
            count = f"is of {len(states)} processes, this run has {self.world_size}"
            self.logger.warning(
                f"`resume`: the checkpoint {count if states else 'keeps no random numbers'}. The "
                "order of the images goes on; random numbers of the model (dropped paths, sampled "
                "boxes) begin anew, so losses are not those of that run."
            )
        for name, parameter in bare(self.model).named_parameters():
            if name in kept.get("gradients", {}):
                parameter.grad = kept["gradients"][name].to(parameter.device)

    def go_back(self, checkpoint: weights.Checkpoint) -> None:
        """Take weights and optimizer from a checkpoint of this run, and go on from here."""
        this: Any = self
        resumes, this._resume = this._resume, True
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)  # of averages
        this._resume = resumes
        bare(self.model).load_state_dict(checkpoint["state_dict"])
        self.optim_wrapper.load_state_dict(checkpoint["optimizer"])

    def evaluate(self) -> None:
        """Evaluate between two iterations; a run that is left meanwhile can be taken up."""
        self._evaluating = all_gather_object(generators.state())
        self.val_loop.run()
        self._evaluating = None

    def save_to_go_on(self, done: int) -> str:
        """Save a run that is left after `done` iterations; return where, for a sentence.

        The next checkpoint of the resumed run replaces the file.
        """
        name = f"iter_{done}.pth"
        if self._saved[0] == done:
            return f"iteration {done} is saved as {self._saved[1]}"
        self.message_hub.update_info(saving.LEFT, name)
        meta = {"iter": done, "epoch": self.epoch}
        self.save_checkpoint(self.work_dir, name, meta=meta, by_epoch=False)
        return f"iteration {done} is saved as {Path(self.work_dir) / name}"

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a local file beside its place and move it there when it is complete.

        All processes call this, the first one writes.
        """
        self.generator_states = self._evaluating or all_gather_object(generators.state())
        done = (kwargs.get("meta") or {}).get("iter")
        done = self.iter + (not kwargs.get("by_epoch", True)) if done is None else done
        self._saved = done, Path(out_dir) / filename
        if self.rank != 0:
            return
        if "://" in out_dir or kwargs.get("backend_args") or kwargs.get("file_client_args"):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with files.replaced(Path(out_dir) / filename) as temporary:
            super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Join the process group over gloo where there is no GPU; mmengine would ask for one."""
        if self._launcher == "slurm":
            slurm.name_processes()
        if self.distributed and not torch.cuda.is_available():
            torch.distributed.init_process_group("gloo")
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for several processes; without GPUs no synchronised norm exists."""
        if self.distributed and not torch.cuda.is_available():
            stated = {"find_unused_parameters": self.cfg.get("find_unused_parameters", False)}
            stated |= {k: v for k, v in (model_wrapper_cfg or {}).items() if k != "type"}
            return MMDistributedDataParallel(revert_sync_batchnorm(model), **stated)
        with warnings.catch_warnings():  # mmengine names an argument that torch renamed
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            return super().wrap_model(model_wrapper_cfg, model)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Let the learning rate follow the batch, linearly (arXiv 1706.02677), and say so.

        A batch is what one step of the optimizer sees: of all processes, and of all iterations
        whose gradients are accumulated.
        """
        loader = self._train_dataloader
        each = loader.get("batch_size") if isinstance(loader, dict) else loader.batch_size
        each = each or 1  # as torch has it
        accumulated = optim_wrapper._accumulative_counts
        self._batch = each * self.world_size * accumulated
        self.message_hub.update_info("lr_batch", self._batch)  # that the rate was set for
        recipe = (auto_scale_lr or {}).get("base_batch_size")
        rule, factor = "none, auto_scale_lr.enable is off", 1.0
        if recipe and auto_scale_lr and auto_scale_lr.get("enable", False):
            rule, factor = "linear", self._batch / recipe
            for group in optim_wrapper.param_groups:  # also one that logs show as "base_lr"
                group["lr"] *= factor
        self._console(logging.INFO)
        if line := parameters.frozen_line(bare(self.model)):
            self.logger.info(line)
        if self._resume and not self._extends:  # the rates of the checkpoint replace these
            return
        if recipe:
            stated = optim_wrapper.optimizer.defaults["lr"]
            self.logger.info(
                f"batch {each} x {self.world_size} device{'s' if self.world_size > 1 else ''}"
                f"{f' x {accumulated} accumulated' if accumulated > 1 else ''}: "
                f"learning rate {short(stated)} -> {short(stated * factor)} "
                f"(rule: {rule}, recipe batch {recipe})"
            )
        options = (self.cfg.get("optim_wrapper") or {}).get("paramwise_cfg")
        groups = optim_wrapper.optimizer.param_groups
        if line := parameters.rates_line(bare(self.model), groups, options):
            self.logger.info(line)
        seen = each * self.world_size
        if recipe and isinstance(self._train_loop, IterBasedTrainLoop) and seen != recipe:
            self.logger.info(
                f"length: {self.max_iters} iterations see {self.max_iters * seen} images, in the "
                f"recipe's batches {self.max_iters * recipe} (max_iters sets another length)"
            )

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedule, and warn of a warm-up that fills most of the run."""
        self._console(logging.INFO)
        parts = [scheduler] if isinstance(scheduler, dict) else scheduler or []
        for i, part in enumerate(parts):
            if not (isinstance(part, dict) and warms_up(part)):  # built ones on resuming
                continue
            end = part.get("end", 0)
            if end > LONG_WARM_UP * self.max_iters:
                self.logger.warning(
                    f"warm-up: {end} of the {self.max_iters} iterations of this run, as stated. "
                    f"The full rate comes late or never: shorten param_scheduler.{i}.end, or the "
                    "run by `max_iters`, which keeps the warm-up within a tenth."
                )
        return super().build_param_scheduler(scheduler)

    def _init_model_weights(self) -> None:
        """Draw random weights, then lay the pretrained backbone over them."""
        ledger.require_meaning(self._may_be_missing, bare(self.model).state_dict())
        super()._init_model_weights()
        if self.cfg.get("pretrained") and not self._resume:  # else the checkpoint holds them
            backbone = bare(self.model).backbone
            weights.load_pretrained(backbone, self.cfg.pretrained, self._may_be_missing)
        self._record_weights()

    @property
    def _may_be_missing(self) -> list[str]:
        return [str(pattern) for pattern in self.cfg.get("allow_missing") or ()]

    @property
    def weights_record(self) -> list[dict[str, Any]]:
        """Return the account of each load that this run stands on, the first one first."""
        return [*self.earlier_weights, *weights.loaded_into(bare(self.model))]

    def _record_weights(self) -> None:
        """Write weights.json beside the log; PlainCheckpoint puts the same into checkpoints."""
        if self.weights_record and self.rank == 0:
            weights.write_record(Path(self.log_dir) / "weights.json", self.weights_record)

    def _knows_other_classes(self, checkpoint: dict) -> bool:
        """Say whether the heads start anew; without names in the file only its shapes can tell."""
        trained = weights.class_names(checkpoint)
        ours = weights.trained_on(self.cfg).get("classes")
        return trained is not None and ours is not None and set(trained) != set(ours)

    @property
    def _extends(self) -> bool:
        """Say whether the resumed run goes on to another length, see `resume`."""
        return bool(self._resume and self.cfg.get("extend"))

    def _require_same_run(self, checkpoint: dict, path: str) -> None:
        """Check that a checkpoint is of this run: its schedule would stand at another place."""
        start = "To start a new run from its weights, use `load_from` instead of `resume`."
        if "optimizer" not in checkpoint or "iter" not in checkpoint.get("meta", {}):
            raise InputError(
                f"`resume`: {path} holds weights only, not the state of a run. {start}"
            )
        known = checkpoint.get("message_hub", {}).get("runtime_info", {})
        planned, batch = known.get("max_iters"), known.get("lr_batch", self._batch)
        if self._extends and checkpoint["meta"]["iter"] >= self.max_iters:
            raise InputError(
                f"`extend`: {path} has come to iteration {checkpoint['meta']['iter']}, a run of "
                f"{self.max_iters} ends before. State a longer one (`max_iters`)."
            )
        if not self._extends and planned not in (None, self.max_iters):
            raise InputError(
                f"`resume`: {path} is of a run of {planned} iterations, this one has "
                f"{self.max_iters}. Resume with the same length and data, or add `extend` to go on "
                f"along the schedule of {self.max_iters} iterations. {start}"
            )
        if averaging.KEY in checkpoint and averaging.averaged(self) is None:
            raise InputError(
                f"`resume`: {path} is of a run that averages its weights. Resume it as it was "
                f"started, with `ema`. {start}"
            )
        if changed := additions.changes(checkpoint["meta"].get("config"), self.cfg):
            self.logger.warning(f"`resume`: {path} is of another run: {', '.join(changed)}.")
        if batch != self._batch and not self._extends:
            self.logger.warning(
                f"`resume`: the learning rate of {path} was set for batches of {batch}, this run "
                f"has {self._batch}. It stays as it is. {start}"
            )

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = "default",
    ) -> None:
        """Go on from a checkpoint, under `extend` along the schedule of a run of another length.

        That schedule stands then where it would stand had the run been planned so from the start.
        The options of the optimizer (rates, momenta, decay) are the config's, its running averages
        and the weights are the checkpoint's.
        """
        if not self._extends:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
            return
        super().resume(filename, resume_optimizer, False, map_location)
        groups = self.optim_wrapper.param_groups
        before = groups[0]["lr"]
        for group, values in zip(groups, self._scheduled, strict=True):
            group.update(values)
        self.message_hub.update_info("lr_batch", self._batch)
        self.logger.info(
            f"extend: on from iteration {self.iter} to {self.max_iters}; learning rate "
            f"{short(before)} -> {short(groups[0]['lr'])} (the schedule of {self.max_iters} "
            f"iterations at {self.iter})"
        )

    def _advance_schedule(self, iterations: int) -> None:
        """Take the schedule as many steps as a run of this length would have; keep its values."""
        schedulers = self.param_schedulers or []
        several = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
        parts = [p for one in several for p in one if not getattr(p, "need_val_args", False)]
        epoch = len(self.train_dataloader)
        by_epoch = isinstance(self.train_loop, EpochBasedTrainLoop)
        groups = self.optim_wrapper.param_groups
        with warnings.catch_warnings():  # no step of the optimizer comes before these
            warnings.filterwarnings("ignore", message="Detected call of")
            for iteration in range(1, iterations + 1):
                for part in parts:
                    if not part.by_epoch or (by_epoch and iteration % epoch == 0):
                        part.step()
        self._scheduled = [{k: v for k, v in group.items() if k != "params"} for group in groups]

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = False,
        revise_keys: Any = None,
    ) -> dict:
        """Load by name and shape; what the file lacks is logged, too little is refused."""
        checkpoint = weights.read(filename, map_location)
        if self._resume:
            self._require_same_run(checkpoint, filename)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        if self._resume:
            checkpoint["meta"].pop("config", None)  # mmengine would read it as program text
        if self._extends:  # before the optimizer of the checkpoint replaces the rates
            self._advance_schedule(checkpoint["meta"]["iter"])
        whole = self._resume or self._train_loop is None
        model = bare(self.model)
        ledger.require_meaning(self._may_be_missing, model.state_dict())
        weights.load(
            model,
            checkpoint,
            weights.WHOLE if whole else weights.START,
            self._advice(checkpoint),
            allowed=self._may_be_missing,
            class_layers=tuple if whole else partial(weights.class_layers, self.cfg, model),
            other_classes=not whole and self._knows_other_classes(checkpoint),
        )
        if self._resume:
            self._left = {k: checkpoint[k] for k in ("generators", "gradients") if k in checkpoint}
            self.earlier_weights = checkpoint["meta"].get("weights") or []
        self._record_weights()
        self._has_loaded = True
        return checkpoint

    def _advice(self, checkpoint: weights.Checkpoint) -> str:
        """Say what to do about a file of which too little fits the model."""
        alone = not self._resume and weights.is_backbone_alone(checkpoint)
        if alone and hasattr(bare(self.model), "backbone"):
            return "The file holds a backbone alone, which `pretrained` starts from."
        start = " To start a new run from it, leave out `resume`." if self._resume else ""
        return "Give the config the checkpoint was trained with." + start


def repaired(evaluator: Any) -> Any:
    """Return the config of an evaluator, mmdet's CocoMetric as the one that reads every file."""
    if isinstance(evaluator, dict) and evaluator.get("type") in ("CocoMetric", "mmdet.CocoMetric"):
        return {**evaluator, "type": "swin_dense.RepairedCocoMetric"}
    return evaluator


def warms_up(part: dict[str, Any]) -> bool:
    """Say whether a part of a schedule is a warm-up: it rises linearly, counted in iterations."""
    return part["type"] == "LinearLR" and not part.get("by_epoch", True)
