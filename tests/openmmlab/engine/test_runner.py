"""Rates of a run, iteration by iteration; a run made longer; two runs in one process."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.data import DataLoader

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import parameters, run
from swin_dense.openmmlab.engine.runner import DenseRunner, bare
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import image_sizes, places

BASE = 0.4
NUMBERS = itertools.count()
NAMED = []  # what a log calls base_lr, of each iteration


class Line(BaseModel):
    """A model of one weight, and of one that is not used."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.other = nn.Parameter(torch.ones(1))  # of a group of its own

    def forward(self, inputs, mode="tensor"):
        return {"loss": (self.weight * inputs).sum()}

    def train_step(self, inputs, optim_wrapper):
        optim_wrapper.update_params(self(inputs)["loss"])
        return {}


class Rates(Hook):
    """Remember the learning rate of each iteration."""

    def __init__(self):
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        found = runner.optim_wrapper.get_lr()
        self.seen.append(found["lr"][0])
        NAMED.extend(found["base_lr"])


def rates(folder, schedule, iterations=None, epochs=None, **options):
    """Return the learning rates of a run; an epoch is 7 iterations."""
    hook = Rates()
    line(folder, schedule, iterations, epochs, hooks=[hook], **options).train()
    return hook.seen


def line(
    folder,
    schedule=None,
    iterations=None,
    epochs=None,
    accumulated=1,
    batch=1,
    recipe=None,
    hooks=(),
    resume=None,
    extend=False,
    saves=False,
):
    """A runner; if it saves, then after each iteration, or each epoch where these are counted."""
    model = Line()
    saving = dict(type="CheckpointHook", by_epoch=epochs is not None, interval=1)
    loop = (
        dict(type="EpochBasedTrainLoop", max_epochs=epochs)
        if epochs
        else dict(type="IterBasedTrainLoop", max_iters=iterations)
    )
    return DenseRunner(
        model=model,
        work_dir=str(folder),
        # mmengine's loop by iterations sleeps two seconds whenever a loader comes to its end
        train_dataloader=DataLoader(
            torch.ones(batch * (7 if epochs else iterations + 1), 1), batch_size=batch
        ),
        train_cfg=loop,
        optim_wrapper=OptimWrapper(
            torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=BASE),
            accumulative_counts=accumulated,
        ),
        param_scheduler=schedule,
        auto_scale_lr=recipe,
        default_hooks=dict(checkpoint=saving if saves else None, logger=None, timer=None),
        custom_hooks=[*hooks, dict(type="swin_dense.PlainCheckpoint")],
        experiment_name=f"rates_{next(NUMBERS)}",
        load_from=resume,
        resume=resume is not None,
        cfg=dict(extend=extend),
    )


def shortened(schedule, iterations, stated):
    """The schedule of a run of `stated` iterations when it is shortened."""
    config = Config(
        dict(
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=stated),
            train_dataloader={},
            param_scheduler=schedule,
        )
    )
    lines = run.shorten(config, iterations)
    return config.to_dict()["param_scheduler"], lines


def by_epochs(**train):
    train = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1) | train
    return Config(dict(train_cfg=train, train_dataloader={}, val_dataloader=dict(batch_size=1)))


def test_stated_intervals_count_iterations_of_a_shortened_run():
    config = by_epochs(val_interval=7)
    config.default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=3))
    keys = ("train_cfg.val_interval", "default_hooks.checkpoint.interval")
    assert run.shorten(config, 50, keys) == []
    assert config.train_cfg.val_interval == 7
    assert config.default_hooks.checkpoint.interval == 3
    (line,) = run.shorten(by_epochs(val_interval=70), 50, keys)
    assert line.startswith("evaluation: after iteration 50 alone (train_cfg.val_interval=70 is lon")
    (line,) = run.shorten(by_epochs(), 50)
    assert line.startswith("evaluation: after iteration 50 alone (train_cfg.val_interval=1 is of a")


@pytest.mark.parametrize(
    ("sampler", "then"),
    [
        (None, dict(type="InfiniteSampler", shuffle=True)),
        (dict(type="DefaultSampler", shuffle=False), dict(type="InfiniteSampler", shuffle=False)),
        (dict(type="ClassAwareSampler"), dict(type="ClassAwareSampler")),
    ],
)
def test_a_sampler_that_is_a_choice_stays(sampler, then):
    config = by_epochs()
    if sampler:
        config.train_dataloader.sampler = sampler
    run.shorten(config, 50)
    assert config.train_dataloader.sampler == then


@pytest.mark.parametrize("key", ["train_cfg.max_epochs", "default_hooks.checkpoint.by_epoch"])
def test_what_a_shortened_run_cannot_use_is_refused(key):
    with pytest.raises(InputError, match=re.escape(key)):
        run.shorten(by_epochs(), 50, [key])


def warm_up(end):
    return dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=end)


def decay(begin, end):
    return dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=begin, end=end)


def steps(values):
    return [b - a for a, b in itertools.pairwise(values)]


@pytest.mark.parametrize(("iterations", "length"), [(20, 2), (35, 3), (60, 6), (200, 20)])
def test_the_warm_up_of_a_shortened_run_takes_a_tenth_and_the_decay_follows_it(
    tmp_path, iterations, length
):
    schedule, lines = shortened([warm_up(1500), decay(1500, 160_000)], iterations, 160_000)
    seen = rates(tmp_path, schedule, iterations)
    assert len(seen) == iterations
    assert seen[0] == pytest.approx(0.01 * BASE)
    rising, falling = seen[:length], seen[length - 1 :]
    assert rising[-1] == pytest.approx(BASE)
    assert steps(rising) == pytest.approx([0.99 * BASE / (length - 1)] * (length - 1))
    assert max(seen) == pytest.approx(BASE)
    assert seen == rising + sorted(falling[1:], reverse=True)
    down = [step for step in steps(seen[length:]) if step]
    assert down == pytest.approx([down[0]] * len(down))  # a straight line
    assert seen[-1] == pytest.approx(0.0, abs=1.1 * abs(down[0]))
    rule = f"rule: at most a tenth of the run, {iterations} iterations"
    assert lines == [f"warm-up: 1500 -> {length} iterations ({rule})"]


@pytest.mark.parametrize("iterations", [1, 2, 8, 9, 10, 19])
def test_a_run_shortened_to_very_few_starts_at_the_full_rate(tmp_path, iterations):
    schedule, _ = shortened([warm_up(1500), decay(1500, 160_000)], iterations, 160_000)
    seen = rates(tmp_path, schedule, iterations)
    assert len(seen) == iterations
    assert seen[0] == pytest.approx(BASE)
    assert seen == sorted(seen, reverse=True)


def test_a_warm_up_within_a_tenth_of_a_shortened_run_stays(tmp_path):
    schedule, lines = shortened([warm_up(5), decay(5, 900)], 50, 900)
    assert lines == []
    seen = rates(tmp_path, schedule, 50)
    assert seen[:5] == pytest.approx([BASE * (0.01 + 0.99 * i / 4) for i in range(5)])


@pytest.mark.parametrize(("end", "warned"), [(15, False), (16, True), (1500, True)])
def test_a_stated_warm_up_stays_as_it_is_and_a_long_one_is_warned_of(tmp_path, capfd, end, warned):
    """Half of thirty iterations is fifteen."""
    seen = rates(tmp_path, [warm_up(end)], 30)
    rising = [BASE * min(1, 0.01 + 0.99 * i / (end - 1)) for i in range(30)]
    assert seen == pytest.approx(rising)
    printed = "".join(capfd.readouterr())
    told = f"warm-up: {end} of the 30 iterations of this run, as stated"
    assert (told in printed) == warned
    assert ("shorten param_scheduler.0.end" in printed) == warned
    assert (told in next(tmp_path.glob("*/*.log")).read_text()) == warned


def test_epochs_are_counted_in_iterations(tmp_path):
    """Nine epochs of seven: a warm-up of six of 63 iterations, steps after 6 and 8 epochs."""
    milestones = dict(type="MultiStepLR", by_epoch=True, end=9, milestones=[6, 8], gamma=0.1)
    seen = rates(tmp_path, [warm_up(6), milestones], epochs=9)
    assert seen[:6] == pytest.approx([BASE * (0.01 + 0.99 * i / 5) for i in range(6)])
    assert seen[6:42] == pytest.approx([BASE] * 36)
    assert seen[42:56] == pytest.approx([BASE / 10] * 14)
    assert seen[56:] == pytest.approx([BASE / 100] * 7)


POLY = [warm_up(3), dict(decay(3, 16), power=0.9)]
STEPS = [
    warm_up(9),
    dict(type="MultiStepLR", by_epoch=True, end=4, milestones=[1, 3], gamma=0.1),
]


@pytest.mark.parametrize(
    ("short", "long", "reached", "lengths"),
    [
        # as if cut off, and run to its end; the decay of the longer run is another one
        ([warm_up(3), decay(3, 8)], POLY, 5, dict(iterations=(8, 16))),
        ([warm_up(3), decay(3, 8)], POLY, 8, dict(iterations=(8, 16))),
        (None, POLY, 4, dict(iterations=(8, 16))),
        ([warm_up(3)], STEPS, 14, dict(epochs=(2, 4))),
    ],
)
def test_a_run_that_is_extended_goes_on_along_the_longer_schedule(
    tmp_path, capfd, short, long, reached, lengths
):
    """Its rates are those that a long run has from there on, counted and scaled as there."""
    ((unit, (first, second)),) = lengths.items()
    recipe = dict(enable=True, base_batch_size=2)
    before = rates(tmp_path / "a", short, **{unit: first}, saves=True, recipe=recipe)
    whole = rates(tmp_path / "b", long, **{unit: second}, recipe=recipe)
    file, later = f"iter_{reached}.pth", f"iter_{reached + 1}.pth"
    if unit == "epochs":
        file, later = f"epoch_{reached // 7}.pth", f"epoch_{reached // 7 + 1}.pth"
    start = str(tmp_path / "a" / file)
    with pytest.raises(InputError, match=r"is of a run of .*, or add `extend` to go on along"):
        rates(tmp_path / "c", long, **{unit: second}, resume=start, recipe=recipe)
    capfd.readouterr()
    on = rates(
        tmp_path / "c", long, **{unit: second}, resume=start, recipe=recipe, extend=True, saves=True
    )
    assert on == pytest.approx(whole[reached:], rel=1e-6)
    assert len(on) == len(whole) - reached
    printed = "".join(capfd.readouterr())
    assert f"extend: on from iteration {reached} to {len(whole)}; learning rate " in printed
    if reached < len(before):
        was, now = parameters.short(before[reached]), parameters.short(whole[reached])
        assert f"learning rate {was} -> {now} (the schedule of" in printed

    # The longer run's own checkpoint resumes as any.
    again = str(tmp_path / "c" / later)
    rest = rates(tmp_path / "d", long, **{unit: second}, resume=again, recipe=recipe)
    assert rest == pytest.approx(whole[reached + (7 if unit == "epochs" else 1) :], rel=1e-6)


def test_a_run_is_not_extended_to_less_than_it_has(tmp_path):
    rates(tmp_path / "a", None, 4, saves=True)
    with pytest.raises(InputError, match="has come to iteration 4, a run of 4 ends before"):
        rates(tmp_path / "b", None, 4, resume=str(tmp_path / "a/iter_4.pth"), extend=True)


def test_a_schedule_of_one_part_without_a_list(tmp_path):
    seen = rates(tmp_path, warm_up(4), 40)
    assert seen[3] == pytest.approx(BASE)
    assert seen[-1] == pytest.approx(BASE)


def test_no_schedule_at_all(tmp_path):
    assert rates(tmp_path, None, 3) == [BASE] * 3


def test_bare_takes_the_wrapping_off():
    model = Line()
    assert bare(model) is model
    assert bare(nn.DataParallel(model)) is model


def test_two_runs_in_one_process_share_no_log(tmp_path, small_shapes, capsys):
    """mmengine keeps loggers and histories by name: the second run would write into the first."""
    rows, logs = {}, {}
    for name, iterations in (("first", 3), ("second", 2)):
        config = configs.load(
            CONFIGS["segmentation"],
            {"train_dataloader.batch_size": 2, "model.data_preprocessor.size": (64, 64)},
        )
        config.work_dir = str(tmp_path / name)
        places.complete_data(config, ("train",), data_root=str(small_shapes.root))
        image_sizes.scale_images(config, (96, 64))
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
        config.train_dataloader.num_workers = 0
        config.train_dataloader.persistent_workers = False
        config.train_dataloader.dataset.pipeline[3].crop_size = (64, 64)
        run.shorten(config, iterations)
        run.train(config)
        (log,) = (tmp_path / name).glob("*/*.log")
        (scalars,) = (tmp_path / name).glob("*/vis_data/scalars.json")
        logs[name] = log
        rows[name] = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [row["iter"] for row in rows["first"]] == [1, 2, 3]
    assert [row["iter"] for row in rows["second"]] == [1, 2]
    assert logs["first"].read_text().count("/3]") == 3
    assert "/2]" not in logs["first"].read_text()
    assert logs["second"].read_text().count("/2]") == 2
    assert "/3]" not in logs["second"].read_text()
    assert str(tmp_path / "first") not in logs["second"].read_text()
    printed = [line for line in capsys.readouterr().out.splitlines() if " iter " in line]
    assert len(printed) == 5  # no line twice
    # A smoothed loss of the first run would show in the first line of the second.
    assert rows["second"][0]["loss"] != pytest.approx(rows["first"][-1]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("batch", "accumulated", "recipe", "share", "line"),
    [
        (2, 1, 16, 1 / 8, "batch 2 x 1 device: learning rate 4e-1 -> 5e-2 (rule: linear, recipe"),
        (3, 5, 10, 3 / 2, "batch 3 x 1 device x 5 accumulated: learning rate 4e-1 -> 6e-1 (rule"),
        (4, 1, 4, 1, "batch 4 x 1 device: learning rate 4e-1 -> 4e-1 (rule: linear, recipe batch"),
    ],
)
def test_the_rate_follows_the_batch(tmp_path, capfd, batch, accumulated, recipe, share, line):
    """By hand: linear in what one step of the optimizer sees; the schedule starts from there."""
    stated = dict(enable=True, base_batch_size=recipe)
    seen = rates(tmp_path, [warm_up(3)], 30, batch=batch, accumulated=accumulated, recipe=stated)
    assert seen[0] == pytest.approx(0.01 * BASE * share)
    assert seen[-1] == pytest.approx(BASE * share)
    assert NAMED[-1] == pytest.approx(BASE * share)
    assert line in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("batch", "accumulated", "told"),
    [
        (2, 1, "30 iterations see 60 images, in the recipe's batches 480"),
        (4, 4, "see 120"),
        (16, 1, ""),
    ],
)
def test_iterations_do_not_follow_the_batch_and_a_run_says_so(
    tmp_path, capfd, batch, accumulated, told
):
    stated = dict(enable=True, base_batch_size=16)
    rates(tmp_path, [], 30, batch=batch, accumulated=accumulated, recipe=stated)
    printed = "".join(capfd.readouterr())
    assert ("length: " in printed) == bool(told)
    assert told in printed


def test_epochs_are_as_long_for_every_batch(tmp_path, capfd):
    rates(tmp_path, [], epochs=2, batch=2, recipe=dict(enable=True, base_batch_size=16))
    assert "length: " not in "".join(capfd.readouterr())


def test_a_loader_without_a_batch_size_has_torch_s(tmp_path):
    runner = DenseRunner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=[torch.ones(1)] * 4,
            sampler=dict(type="DefaultSampler"),
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=2),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=BASE)),
        default_hooks=dict(checkpoint=None, logger=None, timer=None),
        experiment_name=f"rates_{next(NUMBERS)}",
    )
    runner.train()
    assert runner.iter == 2


def test_the_rate_stays_when_asked_to(tmp_path, capfd):
    seen = rates(tmp_path, [], 5, batch=2, recipe=dict(enable=False, base_batch_size=16))
    assert set(seen) == {BASE}
    printed = "".join(capfd.readouterr())
    assert "4e-1 -> 4e-1 (rule: none, auto_scale_lr.enable is off, recipe batch 16)" in printed


def test_a_config_without_a_recipe_s_batch_keeps_its_rate(tmp_path, capfd):
    assert set(rates(tmp_path, [], 5, batch=3)) == {BASE}
    assert "learning rate" not in "".join(capfd.readouterr())


# Checkpoints are written whole or not at all.


@pytest.fixture
def finished(tmp_path):
    runner = line(tmp_path / "run", iterations=1)
    runner.train()
    return runner


def half_of(end):
    """Stands in for mmengine's writer: half a file, then the end."""

    def save(checkpoint, path, **_):
        Path(path).write_bytes(b"half")
        end()

    return save


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_save_leaves_the_old_file(finished, tmp_path, monkeypatch, error):
    def end():
        raise error("in the middle")

    out = tmp_path / "out"
    finished.save_checkpoint(str(out), "epoch_1.pth")
    before = (out / "epoch_1.pth").read_bytes()
    assert torch.load(out / "epoch_1.pth", weights_only=False)["state_dict"]["weight"].shape == (1,)
    monkeypatch.setattr("mmengine.runner.runner.save_checkpoint", half_of(end))
    for name in ("epoch_1.pth", "epoch_2.pth"):
        with pytest.raises(error):
            finished.save_checkpoint(str(out), name)
    assert [p.name for p in out.iterdir()] == ["epoch_1.pth"]
    assert (out / "epoch_1.pth").read_bytes() == before


def test_a_killed_save_leaves_no_file_of_that_name(finished, tmp_path, monkeypatch):
    """The process ends in the middle of writing, without a chance to tidy up."""
    monkeypatch.setattr("mmengine.runner.runner.save_checkpoint", half_of(lambda: os._exit(9)))
    child = os.fork()
    if child == 0:
        finished.save_checkpoint(str(tmp_path / "out"), "epoch_1.pth")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert not list((tmp_path / "out").glob("*.pth"))  # what is left looks like no checkpoint


def test_a_checkpoint_is_an_ordinary_file(finished, tmp_path):
    finished.save_checkpoint(str(tmp_path / "new/deep"), "epoch_1.pth")
    mask = os.umask(0o22)
    os.umask(mask)
    assert (tmp_path / "new/deep/epoch_1.pth").stat().st_mode & 0o777 == 0o666 & ~mask
