"""Weight files: what is read, what is refused, and what an interrupted write leaves."""

import pickle

import pytest
import torch

from swin_dense.checkpoints import files
from swin_dense.errors import InputError, MissingInputError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


class Hostile:
    """Unpickling an instance creates a file: the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize(
    "content",
    [STATE, {"state_dict": STATE}, {"model": STATE, "epoch": 3}],
    ids=["bare", "state_dict", "model"],
)
def test_every_wrapping_is_unwrapped(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    read = files.read(tmp_path / "w.pth")
    assert torch.equal(read["state_dict"]["a.weight"], STATE["a.weight"])


def test_what_a_run_needs_to_resume_stays(tmp_path):
    torch.save(
        {"state_dict": STATE, "meta": {"iter": 5}, "optimizer": {"x": 1}}, tmp_path / "w.pth"
    )
    read = files.read(tmp_path / "w.pth")
    assert read["meta"] == {"iter": 5}
    assert read["optimizer"] == {"x": 1}


def test_half_precision_file_keeps_names_shapes_and_whole_numbers(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    files.write_weights(path, STATE, {"classes": ["a", "b"]}, torch.float16)
    read = files.read(path)
    assert read["meta"]["classes"] == ["a", "b"]
    assert read["state_dict"]["a.weight"].dtype is torch.float16
    assert read["state_dict"]["steps"].dtype is torch.int64
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_does_not_run(tmp_path, protocol, legacy):
    canary = tmp_path / "canary"
    content = {"state_dict": STATE, "meta": Hostile(canary)}
    torch.save(
        content,
        tmp_path / "w.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(InputError, match=r"would run code .* was not read"):
        files.read(tmp_path / "w.pth")
    assert not canary.exists()


def test_code_in_a_bare_pickle_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Hostile(canary)))
    with pytest.raises(InputError):
        files.read(tmp_path / "w.pth")
    assert not canary.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_a_cut_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": STATE}, path)
    else:
        files.write_weights(path, STATE, {}, torch.float32)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(InputError, match=str(path)):
        files.read(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, STATE["steps"]], ids=str)
def test_a_file_without_weights_says_what_it_holds(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no weights"):
        files.read(tmp_path / "w.pth")


def test_a_missing_file_points_to_its_neighbour(tmp_path):
    torch.save(STATE, tmp_path / "epoch_12.pth")
    with pytest.raises(MissingInputError, match=r"Did you mean 'epoch_12.pth'"):
        files.read(tmp_path / "epoch_21.pth")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.pth"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replaced(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_half_precision_cannot_hold_stays_whole(tmp_path):
    state = {"var": torch.tensor([1e5, 1.0]), "nan": torch.tensor([float("nan"), 2.0])}
    files.write_weights(tmp_path / "w.safetensors", state, {}, torch.float16)
    read = files.read(tmp_path / "w.safetensors")["state_dict"]
    assert read["var"].dtype is torch.float32
    assert read["var"].tolist() == [1e5, 1.0]
    assert read["nan"].dtype is torch.float16


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    files.require_place(tmp_path / "new/deep", "--out-dir")
    with pytest.raises(InputError, match=r"--out-dir .*file is a file, not a folder"):
        files.require_place(tmp_path / "file/deep", "--out-dir")
