"""A number that is not finite is told by where it arose, and never reaches a checkpoint."""

import itertools
import re

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.data import DataLoader

import swin_dense.openmmlab  # noqa: F401
from swin_dense.checkpoints import files
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine.recorder import Recorder
from swin_dense.openmmlab.engine.runner import DenseRunner

NUMBERS = itertools.count()
NAN = float("nan")


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        return {"loss": self.body(torch.stack(inputs)).square().mean()}


class Planted(Hook):
    """Do something to a run before its third iteration."""

    priority = "VERY_HIGH"

    def __init__(self, plant):
        self.plant = plant

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            self.plant(runner, data_batch)


def trained(folder, plant, policy="stop", accumulated=1):
    """Train the toy for six iterations of two images."""
    random = torch.Generator().manual_seed(1)
    data = [
        {
            "inputs": torch.randn(3, generator=random),
            "data_samples": DetDataSample(metainfo={"img_path": f"photos/{i}.jpg"}),
        }
        for i in range(12)
    ]
    model = Toy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    runner = DenseRunner(
        model=model,
        work_dir=str(folder),
        train_dataloader=DataLoader(data, batch_size=2, collate_fn=pseudo_collate),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=6),
        optim_wrapper=OptimWrapper(optimizer, accumulative_counts=accumulated),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2, max_keep_ckpts=9),
            logger=None,
        ),
        custom_hooks=[
            Planted(plant),
            dict(type="swin_dense.PlainCheckpoint"),
            dict(type="swin_dense.Recorder", policy=policy),
        ],
        experiment_name=f"recorded_{next(NUMBERS)}",
        cfg=Config(dict(model=dict(type="Toy"))),
    )
    runner.train()
    return runner


def in_input(runner, batch):
    batch["inputs"][1] = batch["inputs"][1] * NAN


def in_layer(runner, batch):
    runner.model.body[1].register_forward_hook(lambda module, given, out: out * NAN)


def in_weight(runner, batch):
    runner.model.body[2].bias.data[1] = float("inf")


def in_buffer(runner, batch):
    runner.model.body[1].running_var[3] = NAN


def in_gradient(runner, batch):
    runner.model.body[0].weight.register_hook(lambda gradient: gradient / 0)


def in_optimizer(runner, batch):
    weight = runner.model.body[0].weight
    runner.optim_wrapper.optimizer.state[weight]["exp_avg_sq"][1] = float("inf")


WHERE = {
    in_input: (3, "pixels of 5.jpg are not finite (images 4.jpg, 5.jpg; learning rate 0.01)."),
    in_layer: (3, "the output of body.1 (BatchNorm1d) is not finite (images 4.jpg, 5.jpg;"),
    in_weight: (3, "the weight body.2.bias is not finite (images 4.jpg, 5.jpg;"),
    in_buffer: (4, "the buffer body.1.running_var is not finite;"),
    in_gradient: (3, "the gradient of body.0.weight is the first not finite (images 4.jpg"),
    in_optimizer: (4, "the state of the optimizer body.0.weight (exp_avg_sq) is not finite;"),
}


@pytest.mark.parametrize("plant", WHERE, ids=lambda plant: plant.__name__)
def test_where_it_arose_is_named(plant, tmp_path):
    iteration, text = WHERE[plant]
    with pytest.raises(InputError) as stopped:
        trained(tmp_path, plant)
    assert f"training: at iteration {iteration} {text}" in str(stopped.value)
    assert ("learning rate" in str(stopped.value)) == (iteration == 3)
    assert [path.name for path in tmp_path.glob("iter_*.pth")] == ["iter_2.pth"]
    if iteration == 3:
        kept = files.read(tmp_path / "not_finite_3.pth")  # without running code
        assert text.startswith(kept["meta"]["found"])
        assert len(kept["batch"]["inputs"]) == 2
    if plant is in_input:  # the rate is not to blame
        assert "Look at these images" in str(stopped.value)


def test_gradients_that_are_gathered_are_looked_at_in_each_iteration(tmp_path):
    with pytest.raises(InputError, match=r"at iteration 3 pixels of 5.jpg .*loss: loss\)"):
        trained(tmp_path, in_input, accumulated=4)


def test_gathered_gradients_are_left_out_together(tmp_path):
    runner = trained(tmp_path, in_input, "skip", accumulated=2)
    assert weights(runner).isfinite().all()
    steps = files.read(tmp_path / "iter_6.pth")["optimizer"]["state"][0]["step"]
    assert float(steps) == 3  # the second one from its second batch alone


def test_gradients_too_large_to_be_squared_are_finite(tmp_path):
    def large(runner, batch):
        runner.model.body[0].weight.register_hook(lambda gradient: gradient * 0 + 1e19)

    assert weights(trained(tmp_path, large)).isfinite().all()


def test_a_policy_is_one_of_three():
    with pytest.raises(InputError, match=r"`on_not_finite`: one of stop, skip, back, not 'go on'"):
        Recorder("go on")


def weights(runner):
    return torch.cat([value.flatten().float() for value in runner.model.state_dict().values()])


def test_a_batch_is_left_out(tmp_path):
    """As if its iteration had not changed anything: weights, statistics, averages of gradients."""
    runner = trained(tmp_path / "a", in_input, "skip")
    three = files.read(tmp_path / "a/iter_4.pth")["optimizer"]["state"][0]["step"]
    assert (runner.iter, float(three)) == (6, 3)
    assert weights(runner).isfinite().all()
    log = next((tmp_path / "a").glob("*/*.log")).read_text()
    assert re.search(r"5.jpg are not finite .* The batch is left out. \(1 of at most 10", log)


def test_a_run_goes_back_to_its_last_checkpoint(tmp_path):
    """Then weights broken without a trace do no harm."""
    runner = trained(tmp_path, in_weight, "back")
    assert weights(runner).isfinite().all()
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert "Going on with the weights of iter_2.pth. (1 of at most 10 times)" in log


def test_a_run_does_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("swin_dense.openmmlab.engine.recorder.MOST", 2)
    with pytest.raises(InputError, match=r"at iteration 5 .* It happened 3 times; the run ends\."):
        trained(tmp_path, in_layer, "skip")
