"""A run ends where its result no longer rises, and knows it after a resume."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine.early_stop import EarlyStop
from swin_dense.openmmlab.settings import additions


class Runner:
    """What the hook asks a runner for."""

    def __init__(self, info=None, extend=False):
        self.iter, self.said, self.cfg = 0, [], {"extend": extend}
        self.train_loop = SimpleNamespace(stop_training=False)
        self.logger = SimpleNamespace(info=self.said.append)
        self.message_hub = SimpleNamespace(runtime_info=info or {})
        self.message_hub.update_info = self.message_hub.runtime_info.__setitem__

    def save_to_go_on(self, done):
        return f"iteration {done} is saved"


def ended(runner, numbers, start=0):
    """Evaluate until the run is ended; return after which iteration it was."""
    hook = EarlyStop("mIoU", 2)
    hook.before_train(runner)
    for place, number in enumerate(numbers, start=start):
        runner.iter = place
        hook.after_val_epoch(runner, {"mIoU": number, "aAcc": 1.0})
        if runner.train_loop.stop_training:
            return place
    return None


@pytest.mark.parametrize(
    ("numbers", "end"),
    [([1, 2, 2, 2], 3), ([1, 3, 2, 4, 3, 2], 5), ([1, 2, 3, 4], None), ([1, float("nan"), 0], 2)],
)
def test_a_run_ends_without_improvement_also_resumed(numbers, end):
    runner = Runner()
    assert ended(runner, numbers) == end
    for cut in range(1, len(numbers) if end is None else end):
        info = {}
        assert ended(Runner(info), numbers[:cut]) is None
        # the resumed run makes its last evaluation again
        assert ended(Runner(info), numbers[cut - 1 :], cut - 1) == end
    if end is not None:
        assert f"iteration {end} is saved" in runner.said[0]
        info = runner.message_hub.runtime_info
        assert ended(Runner(dict(info)), numbers[end:], end) == end
        more = [numbers[end], -1, -2, -3]
        assert ended(Runner(dict(info), extend=True), more, end) == end + 2


def test_an_evaluation_without_that_number_is_an_error():
    with pytest.raises(InputError, match=r"no number 'mIoU'.*it has: coco/bbox_mAP\."):
        EarlyStop("mIoU", 2).after_val_epoch(Runner(), {"coco/bbox_mAP": 1.0})


def test_the_number_is_the_one_that_chooses_the_best_checkpoint():
    loop = dict(type="IterBasedTrainLoop", max_iters=10, val_interval=2)
    config = Config(dict(default_scope="mmseg", train_cfg=loop, val_dataloader=dict(batch_size=1)))
    with pytest.raises(InputError, match="makes 5 evaluations in 10 iterations"):
        additions.early_stop(config, 5)
    assert additions.early_stop(config, 4).endswith("4 evaluations without a better mIoU")
    with pytest.raises(InputError, match="end the run already"):
        additions.early_stop(config, 4)
    config.custom_hooks = []
    config.default_hooks = dict(checkpoint=dict(save_best=["aAcc", "mIoU"], rule="greater"))
    assert additions.early_stop(config, 3).endswith("better aAcc")
    assert additions.stated(config)["early_stop"] == 3
    config.val_dataloader = None
    config.custom_hooks = []
    with pytest.raises(InputError, match="this run makes none"):
        additions.early_stop(config, 1)
