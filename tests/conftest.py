"""A small shapes set, a model of each task fitted on it for a few iterations, and real data."""

import gc
import os
from pathlib import Path

import pytest
import torch

from swin_dense.datasets import shapes

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "detection": ROOT / "configs/mask_rcnn_swin_nano.py",
    "segmentation": ROOT / "configs/upernet_swin_nano.py",
}
# Small enough for a test, no two sizes alike, and no workers to wait for at the end of a run.
SMALL = ["--image-scale", "96,64", "--cfg-options", "train_dataloader.batch_size=3"]
for _loader in ("train_dataloader", "val_dataloader"):
    SMALL += [f"{_loader}.num_workers=0", f"{_loader}.persistent_workers=False"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Many small tensors: threads cost more than they bring, and CI machines are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _imports_are_not_searched():
    """Spare the collector the millions of objects that imports leave: a fifth of all time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_shapes(tmp_path_factory):
    """Nine training and four validation images of 72x104."""
    return shapes.write(tmp_path_factory.mktemp("set"), seed=5, train=9, val=4, size=(72, 104))


@pytest.fixture(scope="session", params=list(CONFIGS))
def trained(request, tmp_path_factory, small_shapes):
    """(task, config, folder of a finished run with iter_4.pth and iter_8.pth)."""
    from swin_dense.cli import train

    work = tmp_path_factory.mktemp(request.param)
    config = CONFIGS[request.param]
    status = train.main(
        [str(config), "--data-root", str(small_shapes.root), "--work-dir", str(work)]
        + ["--max-iters", "8", *SMALL, "default_hooks.checkpoint.interval=4"]
        + ["default_hooks.checkpoint.by_epoch=False"]
    )
    assert status == 0
    return request.param, config, work


@pytest.fixture
def real_data():
    """Gives a folder of real data by name, where this machine has it; else the test is skipped."""

    def folder(name: str) -> Path:
        shared = Path(os.environ.get("SWIN_DENSE_SHARED", ROOT.parent / "shared"))
        if not (shared / "data" / name).is_dir():
            pytest.skip(f"no real data set {name!r} in {shared / 'data'} (SWIN_DENSE_SHARED)")
        return shared / "data" / name

    return folder
