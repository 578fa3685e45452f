"""mmengine's runner with a quiet console, a warm-up that fits the run, and weights that fit."""

import logging
import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

from swin_dense.checkpoints import files, ledger
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import weights
from swin_dense.openmmlab.settings import readers
from swin_dense.registry import RUNNERS

WARM_UP_SHARE = 0.1  # of the run; the papers' are 0.2 to 1 % of theirs


def bare(model: Any) -> Any:
    """The model itself, without what distributed training wraps around it."""
    return getattr(model, "module", model)


def _short(rate: float) -> str:
    """0.0000125 -> "1.25e-5"."""
    digits, exponent = f"{rate:.2e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _concerns_the_user(record: logging.LogRecord) -> bool:
    """Leave out mmengine's warnings of its own old names, and that mmseg's metric has no prefix."""
    others = ('"FileClient"', '"HardDiskBackend"', "The prefix is not set in metric class")
    return not record.getMessage().startswith(others)


@RUNNERS.register_module()
class DenseRunner(Runner):
    """Trains and tests what a complete config says; see `swin_dense.openmmlab.engine.run`."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.earlier_weights: list[dict[str, Any]] = []  # of the run that this one resumes
        self._batch = 0  # images of a step of the optimizer, in all processes; set by scale_lr
        super().__init__(*args, **kwargs)
        self._console(logging.INFO)

    def train(self) -> nn.Module:
        """Train, without a console line for each parameter's options."""
        self._console(logging.WARNING)
        return super().train()

    def build_logger(self, *args: Any, **kwargs: Any) -> logging.Logger:
        """The environment, the config and the hooks go to the log file, not to the console."""
        self.logger = super().build_logger(*args, **kwargs)
        self._console(logging.WARNING)
        return self.logger

    def _console(self, level: int) -> None:
        for handler in self.logger.handlers:
            if type(handler) is logging.StreamHandler and self.rank == 0:
                handler.setLevel(level)
                handler.addFilter(_concerns_the_user)

    @staticmethod
    def build_dataloader(dataloader: Any, *args: Any, **kwargs: Any) -> DataLoader:
        """Build a loader whose pipeline reads files by our readers, see `settings.readers`."""
        return Runner.build_dataloader(readers.with_ours(dataloader), *args, **kwargs)

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write a local file beside its place and move it there when it is complete."""
        if "://" in out_dir or kwargs.get("backend_args") or kwargs.get("file_client_args"):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        with files.replaced(Path(out_dir) / filename) as temporary:
            super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)

    def setup_env(self, env_cfg: dict) -> None:
        """Join the process group over gloo where there is no GPU; mmengine would ask for one."""
        if self.distributed and not torch.cuda.is_available():
            if self._launcher == "slurm":
                os.environ.setdefault("RANK", os.environ["SLURM_PROCID"])
                os.environ.setdefault("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
                os.environ.setdefault("WORLD_SIZE", os.environ["SLURM_NTASKS"])
            torch.distributed.init_process_group("gloo")
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Several processes without GPUs: no synchronised norm exists, no device is named."""
        if self.distributed and not torch.cuda.is_available():
            return MMDistributedDataParallel(revert_sync_batchnorm(model))
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
        if not (auto_scale_lr and recipe):
            return
        rule, factor = "none, auto_scale_lr.enable is off", 1.0
        if auto_scale_lr.get("enable", False):
            rule, factor = "linear", self._batch / recipe
            for group in optim_wrapper.param_groups:  # also one that logs show as "base_lr"
                group["lr"] *= factor
        if self._resume:  # the rates of the checkpoint replace these
            return
        self._console(logging.INFO)
        stated = optim_wrapper.optimizer.defaults["lr"]
        self.logger.info(
            f"batch {each} x {self.world_size} device{'s' if self.world_size > 1 else ''}"
            f"{f' x {accumulated} accumulated' if accumulated > 1 else ''}: "
            f"learning rate {_short(stated)} -> {_short(stated * factor)} "
            f"(rule: {rule}, recipe batch {recipe})"
        )
        seen = each * self.world_size
        if isinstance(self._train_loop, IterBasedTrainLoop) and seen != recipe:
            self.logger.info(
                f"length: {self.max_iters} iterations see {self.max_iters * seen} images, in the "
                f"recipe's batches {self.max_iters * recipe} (--max-iters sets another length)"
            )

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Shorten a warm-up that would fill the run."""
        self._console(logging.INFO)
        scheduler = [scheduler] if isinstance(scheduler, dict) else scheduler
        longest = int(self.max_iters * WARM_UP_SHARE)
        for part in [p for p in scheduler or [] if isinstance(p, dict)]:  # built ones on resuming
            warms_up = part["type"] == "LinearLR" and not part.get("by_epoch", True)
            if not (warms_up and part.get("end", 0) > longest):
                continue
            self.logger.info(
                f"warm-up: {part['end']} -> {longest} iterations "
                f"(rule: at most a tenth of the run, {self.max_iters} iterations)"
            )
            for other in scheduler:
                if other.get("begin") == part["end"] and not other.get("by_epoch", True):
                    other["begin"] = longest
            part["end"] = longest
            if longest < 2:  # from its first factor to 1 takes two iterations
                scheduler.remove(part)
        return super().build_param_scheduler(scheduler)

    def _init_model_weights(self) -> None:
        """Random weights, then the pretrained backbone over them."""
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
        """The account of each load that this run stands on, the first one first."""
        return [*self.earlier_weights, *weights.loaded_into(bare(self.model))]

    def _record_weights(self) -> None:
        """weights.json beside the log; PlainCheckpoint writes the same into every checkpoint."""
        if self.weights_record and self.rank == 0:
            weights.write_record(Path(self.log_dir) / "weights.json", self.weights_record)

    def _knows_other_classes(self, checkpoint: dict) -> bool:
        """Whether the heads start anew; without names in the file only its shapes can tell."""
        trained = weights.class_names(checkpoint)
        ours = weights.trained_on(self.cfg).get("classes")
        return trained is not None and ours is not None and set(trained) != set(ours)

    def _require_same_run(self, checkpoint: dict, path: str) -> None:
        """Only a run's own checkpoint can be resumed: its schedule would stand at another place."""
        start = "To start a new run from its weights, use --load-from instead of --resume."
        if "optimizer" not in checkpoint or "iter" not in checkpoint.get("meta", {}):
            raise InputError(
                f"--resume: {path} holds weights only, not the state of a run. {start}"
            )
        known = checkpoint.get("message_hub", {}).get("runtime_info", {})
        planned, batch = known.get("max_iters"), known.get("lr_batch", self._batch)
        if planned not in (None, self.max_iters):
            raise InputError(
                f"--resume: {path} is of a run of {planned} iterations, this one has "
                f"{self.max_iters}. Resume with the same length and data. {start}"
            )
        if batch != self._batch:
            self.logger.warning(
                f"--resume: the learning rate of {path} was set for batches of {batch}, this run "
                f"has {self._batch}. It stays as it is. {start}"
            )

    def load_checkpoint(
        self,
        filename: str,
        map_location: Any = "cpu",
        strict: bool = False,
        revise_keys: Any = None,
    ) -> dict:
        """Load by name and shape; what the file lacks is logged, too little is refused."""
        checkpoint = weights.read(filename, map_location)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        if self._resume:
            self._require_same_run(checkpoint, filename)
        whole = self._resume or self._train_loop is None
        model = bare(self.model)
        ledger.require_meaning(self._may_be_missing, model.state_dict())
        weights.load(
            model,
            checkpoint,
            weights.WHOLE if whole else weights.START,
            "Give the config the checkpoint was trained with."
            + (" To start a new run from it, leave out --resume." if self._resume else ""),
            allowed=self._may_be_missing,
            class_layers=tuple if whole else partial(weights.class_layers, self.cfg, model),
            other_classes=not whole and self._knows_other_classes(checkpoint),
        )
        if self._resume:
            self.earlier_weights = checkpoint["meta"].get("weights") or []
        self._record_weights()
        self._has_loaded = True
        return checkpoint
