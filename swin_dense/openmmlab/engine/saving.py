"""Checkpoints of a run: the new one is whole before an old one goes."""

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from swin_dense.openmmlab.engine import disk_space
from swin_dense.registry import HOOKS

LEFT = "stopped_file"  # the run's note of a checkpoint that a signal asked for


def with_ours(hooks: Any) -> Any:
    """Return the default hooks of a config, mmengine's checkpoint hook as ours."""
    hook = (hooks or {}).get("checkpoint", {})  # mmengine has one where none is stated
    if not isinstance(hook, dict) or hook.get("type") not in (None, "CheckpointHook"):
        return hooks
    return {**(hooks or {}), "checkpoint": {**hook, "type": "swin_dense.Checkpoints"}}


@HOOKS.register_module()
class Checkpoints(CheckpointHook):
    """mmengine's checkpoint hook, which would remove an old file before the new one is written."""

    max_keep_ckpts: int

    def before_train(self, runner: Runner) -> None:
        """Require room for a checkpoint before the first iteration."""
        super().before_train(runner)
        if self._on_a_disk():
            disk_space.require(runner, Path(self.out_dir))
            most = self.max_keep_ckpts
            kept = most + 1 + bool(self.save_best) if most > 0 else 0
            disk_space.tell(runner, Path(self.out_dir), kept)

    def _on_a_disk(self) -> bool:
        return is_main_process() and Path(self.out_dir).is_dir()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: Any) -> None:
        if self._on_a_disk():
            disk_space.require(runner, Path(self.out_dir))
        most = self.max_keep_ckpts
        gone: list[Path] = []
        if most > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            kept = [*self.keep_ckpt_ids, step]
            gone = [Path(self.out_dir) / self.filename_tmpl.format(one) for one in kept[:-most]]
            self.keep_ckpt_ids.append(step)  # drops the first when it is full
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        if left := runner.message_hub.runtime_info.get(LEFT):
            gone.append(Path(runner.work_dir) / left)
            runner.message_hub.update_info(LEFT, "")
        self.max_keep_ckpts = -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = most
        if is_main_process():
            for file in gone:
                if file.name != Path(self.last_ckpt).name:
                    file.unlink(missing_ok=True)
