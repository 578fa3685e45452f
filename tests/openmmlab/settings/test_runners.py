"""A config that asks for a divided model, or for another runner, is refused."""

import pytest

from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import runners


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"strategy": {"type": "FSDPStrategy"}}, r"strategy has to be left out.*'FSDPStrategy'"),
        ({"strategy": "auto"}, r"it is 'auto'"),
        ({"runner_type": "FlexibleRunner"}, r"runner_type is 'Runner' or left out"),
        (
            {"model_wrapper_cfg": {"type": "MMFullyShardedDataParallel"}},
            r"model_wrapper_cfg.type is 'MMDist.*'MMFully.*accumulative_counts",
        ),
    ],
)
def test_other_ways_to_run_are_refused(asked, says):
    with pytest.raises(InputError, match=says):
        runners.require_ours(asked)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"strategy": None, "model_wrapper_cfg": None, "runner_type": "Runner"},
        {"model_wrapper_cfg": {"find_unused_parameters": True}},
        {"model_wrapper_cfg": {"type": "MMDistributedDataParallel"}},
    ],
)
def test_ours_is_not(asked):
    runners.require_ours(asked)
