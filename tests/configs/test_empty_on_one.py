"""Every kind of model trains in two processes one of which sees no object: neither waits for ever,
and both log the same terms of the loss."""

import datetime
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from mmengine.dist import all_gather_object
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.runner import set_random_seed
from test_models import DIFFERENT, build, collated, without_truth
from torch import distributed

STEPS = 3
PATIENCE = 900  # seconds for all of them; one waits at most 60 for the other


def train(name, root, rank):
    """Take three steps with a model made small, and compare what both processes have then."""
    config, model, images, _ = build(name, root)
    model = MMDistributedDataParallel(model)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    items = [without_truth(item) for item in images] if rank else images
    set_random_seed(rank)
    for step in range(1, STEPS + 1):
        terms = model.train_step(collated(items), optimizer)
        ours, others = all_gather_object(list(terms))
        assert ours == others, f"step {step}: {ours} and {others}"
        wrong = [key for key, value in terms.items() if not torch.as_tensor(value).isfinite().all()]
        assert not wrong, f"step {step}: {wrong} are not finite"
    sums = [float(parameter.detach().double().sum()) for parameter in model.parameters()]
    ours, others = all_gather_object(sums)
    assert ours == others, "weights differ"


def main(rank, root, place, names):
    """Train each in turn; say its name first, so that what fails is known."""
    patience = datetime.timedelta(seconds=60)
    given = {"rank": rank, "world_size": 2, "timeout": patience}
    distributed.init_process_group("gloo", init_method=f"file://{place}", **given)
    torch.set_num_threads(1)
    for name in names:
        print(name, flush=True)
        train(name, root, rank)


@pytest.mark.slow
def test_two_processes_of_which_one_sees_no_object(small_shapes, tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *sys.path])
    given = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    common = [str(small_shapes.root), str(tmp_path / "meet"), *DIFFERENT]
    pair = [
        subprocess.Popen(
            [sys.executable, __file__, rank, *common],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=given,
        )
        for rank in ("0", "1")
    ]
    try:
        printed = [one.communicate(timeout=PATIENCE)[0] for one in pair]
    finally:
        for one in pair:
            one.kill()
    assert [one.returncode for one in pair] == [0, 0], "\n".join(text[-3000:] for text in printed)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
