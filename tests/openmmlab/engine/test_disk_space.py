"""A checkpoint that has no room is told before it is begun."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import disk_space
from swin_dense.openmmlab.engine.saving import Checkpoints


def run(optimizer, hooks=()):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 500), torch.nn.BatchNorm1d(500))
    made = optimizer(model.parameters())
    return SimpleNamespace(
        model=model, hooks=list(hooks), optim_wrapper=SimpleNamespace(optimizer=made)
    )


def adamw(parameters):
    return torch.optim.AdamW(parameters)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def plain(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize("optimizer", [adamw, momentum, plain])
def test_the_size_is_that_of_the_file_before_and_after_the_first_step(optimizer, tmp_path):
    runner = run(optimizer)
    before = disk_space.checkpoint_size(runner)
    runner.model(torch.randn(7, 300)).sum().backward()
    runner.optim_wrapper.optimizer.step()
    after = disk_space.checkpoint_size(runner)
    file = tmp_path / "iter_1.pth"
    torch.save([runner.model.state_dict(), runner.optim_wrapper.optimizer.state_dict()], file)
    for found in (before, after):
        assert found == pytest.approx(file.stat().st_size, rel=0.03)
    runner.hooks.append(EMAHook())
    weights = sum(x.numel() * 4 for x in runner.model.parameters())
    assert disk_space.checkpoint_size(runner) - after == pytest.approx(weights, rel=0.05)


def test_no_room_is_told_at_the_start_and_before_a_save(tmp_path, monkeypatch, caplog):
    runner = run(adamw)
    runner.work_dir, runner.logger = str(tmp_path), SimpleNamespace(info=print)
    runner.message_hub = SimpleNamespace(runtime_info={})
    hook = Checkpoints(interval=1, by_epoch=False, max_keep_ckpts=2)
    free = 10**9
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    said = []
    monkeypatch.setattr(disk_space, "print_log", lambda text, logger: said.append(text))
    hook.before_train(runner)
    assert not said
    free = 3 * 10**6  # of 1.8 MB each
    hook.before_train(runner)
    (text,) = said
    assert "a checkpoint takes 1.9 MB, 3 of them lie there at once" in text
    free = 10**6
    rule = rf"`work_dir`: a checkpoint of this run takes 1.9 MB, and {tmp_path} has 1.0 MB left"
    with pytest.raises(InputError, match=rule):
        hook.before_train(runner)
    with pytest.raises(InputError, match=rule):
        hook._save_checkpoint_with_step(runner, 1, {})
    assert not list(tmp_path.glob("*.pth"))
