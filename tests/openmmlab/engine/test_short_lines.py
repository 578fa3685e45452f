"""What the console shows of a log: short, once, and nothing less in the file."""

import logging

import pytest

from swin_dense.openmmlab.engine import short_lines
from swin_dense.openmmlab.engine.short_lines import ForConsole, Line, ShortLines


def record(message, level=logging.INFO):
    return logging.LogRecord("mmengine", level, "", 0, message, None, None)


class Hub:
    def __init__(self, eta, scalars):
        self.runtime_info = {"eta": eta}
        self.log_scalars = {name: Scalar(value) for name, value in scalars.items()}

    def get_info(self, name):
        return self.runtime_info[name]


class Scalar:
    def __init__(self, value):
        self.value = value

    def current(self):
        return self.value

    def mean(self, window=None):
        return self.value

    def statistics(self, **how):
        return self.value


class Runner:
    """What mmengine's log processor asks a runner for."""

    def __init__(self, scalars, iterations=160000):
        self.message_hub = Hub(777777, scalars)
        self.iter, self.max_iters, self.epoch, self.max_epochs = 123455, iterations, 17, 36
        self._train_loop = self.train_loop = self.val_loop = self
        self.dataloader = range(58633)
        self.model = None


LOSSES = {f"train/decode.d{i}.loss_mask": 1.0 + i for i in range(9)}


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_line_of_training_is_short(by_epoch):
    scalars = {"train/base_lr": 1e-4, "train/lr": 2e-4, "train/time": 1.25, "train/data_time": 0.1}
    runner = Runner({**scalars, "train/loss": 45.0, "train/acc": 99.0, **LOSSES})
    tag, line = ShortLines(by_epoch=by_epoch).get_log_after_iter(runner, 20776, "train")
    printed = ForConsole().format(record(line))
    place = "epoch 18/36 20777/58633" if by_epoch else "iter 123456/160000"
    start = f"{place}  eta 9 days, 0:02:57  1.25 s  lr 2.00e-04  loss 45.0000  decode.d8.mask 9.000"
    assert printed[9:].startswith(start)
    assert len(printed) <= short_lines.WIDTH
    assert set(LOSSES) <= {f"train/{name}" for name in tag}
    assert all(name.removeprefix("train/") in line for name in LOSSES)
    assert "base_lr" in line


def test_an_evaluation_is_a_line_for_each_kind_of_number():
    kinds = ("bbox", "segm")
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@1", "AR@10", "AR_s@100")
    found = {f"val/coco/{kind}_{name}": 0.5 for kind in kinds for name in names}
    runner = Runner({**found, "val/time": 0.1, "val/data_time": 0.1})
    line = ShortLines(by_epoch=False).get_log_after_epoch(runner, 7, "val")[1]
    boxes, masks = ForConsole().format(record(line)).splitlines()
    start = "evaluation at iteration 123455  coco/bbox:  mAP 0.5000  mAP_50 0.5000  "
    assert boxes[9:].startswith(start)
    assert masks[9:].startswith(start.replace("bbox", "segm"))
    assert max(map(len, (boxes, masks))) <= short_lines.WIDTH
    assert "coco/segm_AR_s@100: 0.5000" in line
    (row,) = (
        ForConsole()
        .format(
            record(
                ShortLines().get_log_after_epoch(
                    Runner({"val/aAcc": 80.0, "val/mIoU": 41.5}), 7, "val"
                )[1]
            )
        )
        .splitlines()
    )
    assert row[9:] == "evaluation at iteration 123455  aAcc 80.0000  mIoU 41.5000"


def test_what_is_said_once_more_is_for_the_file():
    for text in ("Evaluating bbox...", "\n Average Precision ...", "bbox_mAP_copypaste: 0.1 0.2"):
        assert not short_lines.concerns_the_user(record(text))
    assert short_lines.concerns_the_user(record(Line("Iter(train) ...", "iter 1")))
    assert ForConsole().format(record("100% odd", logging.WARNING))[9:] == "warning: 100% odd"
