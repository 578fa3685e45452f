"""Which checkpoint a run goes on from, and that a folder is of one run."""

import os
import socket

import pytest
import torch

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import run_folder


def write(folder, name, when, content=None):
    path = folder / name
    state = {"state_dict": {"w": torch.ones(3)}, "meta": {"iter": 3}, "optimizer": {}}
    torch.save(state if content is None else content, path)
    os.utime(path, (when, when))
    return path


def test_the_newest_that_can_be_read(tmp_path):
    said = []
    assert run_folder.newest(tmp_path, said.append) is None
    write(tmp_path, "iter_9.pth", 100)
    good = write(tmp_path, "epoch_2.pth", 200)
    assert run_folder.newest(tmp_path, said.append).path == good
    assert said == []
    whole = good.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        (tmp_path / "iter_12.pth").write_bytes(content)
        os.utime(tmp_path / "iter_12.pth", (300, 300))
        said.clear()
        assert run_folder.newest(tmp_path, said.append).path == good
        assert said[0].startswith("resume: iter_12.pth was not written to its end (")
        assert said[1] == "resume: going on from epoch_2.pth, the newest that can be read"


def test_numbers_tell_more_than_times(tmp_path):
    last = write(tmp_path, "iter_10.pth", 100)
    write(tmp_path, "iter_9.pth", 200)  # as a copy of the folder may have it
    write(tmp_path, "best_mIoU_iter_12.pth", 300)  # none that a run goes on from
    assert run_folder.newest(tmp_path, print).path == last


def test_none_can_be_read(tmp_path):
    write(tmp_path, "best_3.pth", 100)  # none that a run goes on from
    (tmp_path / "iter_3.pth").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"none of the 1 checkpoints in .* can be read"):
        run_folder.newest(tmp_path, print)


def test_a_folder_is_of_one_run(tmp_path):
    folder = tmp_path / "run"
    with run_folder.owned(folder):
        who = f"process {os.getpid()} on {socket.gethostname()}"
        refused = pytest.raises(InputError, match=rf"another run writes to .* \({who}\)")
        with refused, run_folder.owned(folder):
            pass
    with run_folder.owned(folder):
        pass
    assert list(folder.iterdir()) == []


def test_what_a_killed_run_left_half_written_is_swept_away(tmp_path):
    kept = {"iter_3.pth", ".gitignore", ".iter_3.pth.note"}
    for name in (*kept, ".iter_6.pth.ab12_cd3", ".weights_fp16.safetensors.x8zq0000"):
        (tmp_path / name).write_bytes(b"half")
    with run_folder.owned(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == kept
