"""The config that a checkpoint carries comes back as it was and runs nothing; a run's last file."""

import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmengine.config import Config

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import trained
from swin_dense.openmmlab.settings import config as configs

RESIZE = {"type": "Resize", "scale": (96, 64), "keep_ratio": True}


def values(**more):
    """The least that a config consists of."""
    loader = {"dataset": {"pipeline": [{"type": "swin_dense.LoadImage"}, RESIZE]}}
    model = {"type": "Net", "backbone": {"type": "swin_dense.Swin", "depths": (2, 6)}}
    return {"default_scope": "mmdet", "model": model, "test_dataloader": loader, **more}


def carried(values, file="mine.py"):
    """A checkpoint with a config, as a file would have it."""
    config = Config(values)
    vars(config)["_filename"] = file
    return {"meta": {"config": json.loads(json.dumps(trained.write_config(config)))}}


@pytest.mark.parametrize("task", CONFIGS)
def test_a_config_comes_back_as_it_was(task):
    """All that testing needs, with every tuple a tuple and every list a list."""
    config = configs.load(CONFIGS[task])
    written = json.loads(json.dumps(trained.write_config(config)))
    read = trained.read_config({"meta": {"config": written}})
    expected = {k: v for k, v in config.to_dict().items() if k not in trained.RUN}
    assert read.to_dict() == expected  # (1, 2) != [1, 2]
    assert read.filename == CONFIGS[task].name
    assert {"model", "test_dataloader", "test_evaluator", "test_cfg"} <= expected.keys()
    assert "optim_wrapper" not in expected
    assert "optim_wrapper" in written["values"]


def test_what_has_no_form_in_json_is_written_too():
    ours = values(test_cfg={"sizes": {7: (1, (2.5, None))}, "grid": np.arange(3), "x": np.int64(4)})
    ours["optim_wrapper"] = {"optimizer": {"type": torch.optim.AdamW}}
    written = carried(ours)
    read = trained.read_config(written)
    assert read.test_cfg.to_dict() == {"sizes": {7: (1, (2.5, None))}, "grid": [0, 1, 2], "x": 4}
    optimizer = written["meta"]["config"]["values"]["optim_wrapper"]["optimizer"]
    assert optimizer == {"type": "torch.optim.adamw.AdamW"}


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "os.system", "command": "touch x"}, "os.system"),
        ({"type": "subprocess.run"}, "subprocess.run"),
        ({"type": "torch.hub.load"}, "torch.hub.load"),
        ({"type": "__import__('os').getcwd()"}, "__import__"),
        ({"type": "nms", "warp_mode": "print(1)"}, r"print\(1\)"),
        ({"type": ["a"]}, r"\['a'\]"),
    ],
)
def test_a_carried_config_builds_only_what_is_registered(part, named):
    hostile = values()
    hostile["model"] = {"type": "Net", "test_cfg": {"nms": part}}
    with pytest.raises(InputError, match=rf"wants .*{named}.* no registered name"):
        trained.read_config(carried(hostile))


def test_parts_of_registered_scopes_and_paths_pass():
    fine = values()
    fine["model"]["neck"] = {"type": "mmdet.FPN", "init_cfg": {"checkpoint": "best (2).pth"}}
    assert trained.read_config(carried(fine)).model.neck.type == "mmdet.FPN"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"values": {"model": {}}}, r"lacks default_scope\. Name a config"),
        ({"values": [1]}, r"cannot be read"),
        ({}, r"cannot be read \(KeyError"),
        ({"values": {"text": 1}}, r"cannot be read"),
        ({"values": {"a": {"__pairs__": [[[1], 2]]}}}, r"cannot be read"),
    ],
)
def test_a_damaged_config(config, says):
    with pytest.raises(InputError, match=says):
        trained.read_config({"meta": {"config": config}})


@pytest.mark.parametrize("meta", [{}, None, {"config": "mask_rcnn_swin_nano.py"}])
def test_weights_without_a_config(meta):
    assert trained.read_config({"meta": meta}) is None


def run_folder(folder, *names, note=None):
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    if note:
        (folder / "last_checkpoint").write_text(note)
    return folder


@pytest.mark.parametrize(
    ("names", "note", "last"),
    [
        (["iter_4.pth", "iter_12.pth", "best_AP.pth"], None, "iter_12.pth"),
        (["iter_4.pth", "iter_12.pth"], "/elsewhere/run/iter_4.pth", "iter_4.pth"),
        (["epoch_3.pth"], "/elsewhere/run/epoch_9.pth", "epoch_3.pth"),
        (["weights_fp16.safetensors", "a.log"], None, "weights_fp16.safetensors"),
    ],
)
def test_the_last_checkpoint_of_a_run(tmp_path, names, note, last):
    folder = run_folder(tmp_path / "run", *names, note=note)
    assert trained.last_checkpoint(folder) == folder / last


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"run holds no checkpoint of a run .* it has a\.log\."):
        trained.last_checkpoint(run_folder(tmp_path / "run", "a.log"))
