"""A new checkpoint is whole before an old one goes."""

from types import SimpleNamespace

import pytest
import torch

from swin_dense.openmmlab.engine.saving import Checkpoints, with_ours


class Hub:
    def __init__(self):
        self.runtime_info = {}

    def update_info(self, key, value):
        self.runtime_info[key] = value


class Runner:
    def __init__(self, folder):
        self.work_dir, self.message_hub, self.full = str(folder), Hub(), False
        self.logger = SimpleNamespace(info=print)
        self.model, self.hooks = torch.nn.Linear(3, 5), []
        self.optim_wrapper = SimpleNamespace(optimizer=torch.optim.AdamW(self.model.parameters()))

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        if self.full:
            raise OSError("No space left on device")
        path = f"{out_dir}/{filename}"
        with open(path, "w") as file:
            file.write("whole")


def test_the_oldest_goes_last(tmp_path):
    runner = Runner(tmp_path)
    hook = Checkpoints(interval=1, by_epoch=False, max_keep_ckpts=2)
    hook.before_train(runner)

    def left():
        return sorted(path.name for path in tmp_path.glob("iter*.pth"))

    best = tmp_path / "best_coco_bbox_mAP_iter_1.pth"
    best.write_text("older than all that go")

    for step in (2, 4):
        hook._save_checkpoint_with_step(runner, step, {})
    (tmp_path / "iter_5.pth").write_text("asked for by a signal")
    runner.message_hub.update_info("stopped_file", "iter_5.pth")
    hook._save_checkpoint_with_step(runner, 6, {})
    assert left() == ["iter_4.pth", "iter_6.pth"]
    runner.full = True
    with pytest.raises(OSError, match="No space"):
        hook._save_checkpoint_with_step(runner, 8, {})
    assert left() == ["iter_4.pth", "iter_6.pth"]
    assert hook.max_keep_ckpts == 2
    assert best.exists()


def test_mmengine_s_hook_becomes_ours():
    assert with_ours({"checkpoint": {"interval": 3}, "timer": None}) == {
        "checkpoint": {"interval": 3, "type": "swin_dense.Checkpoints"},
        "timer": None,
    }
    for without in (None, {}):
        assert with_ours(without) == {"checkpoint": {"type": "swin_dense.Checkpoints"}}
    for others in ({"checkpoint": None}, {"checkpoint": {"type": "Mine"}}):
        assert with_ours(others) == others
