"""Weight files: no code runs, no half file is left, and what does not fit is told or refused."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.runner import load_checkpoint, save_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab import weights

ADVICE = "Ask the sender."


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def loaded_into_a_model(path):
    return load_checkpoint(nn.Linear(1, 1), path)


@pytest.mark.parametrize(
    "door", [CheckpointLoader.load_checkpoint, _load_checkpoint, loaded_into_a_model]
)
@pytest.mark.parametrize("form", ["archive", "legacy", "pickle"])
def test_mmengine_no_longer_unpickles(tmp_path, door, form):
    canary, path = tmp_path / "canary", tmp_path / "hostile.pth"
    content = {"state_dict": {"weight": torch.ones(1, 1)}, "meta": Hostile(canary)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(canary)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "archive")
    with pytest.raises(InputError, match=r"hostile\.pth"):
        door(str(path))
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    """Else the test above proves nothing."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "canary"))).close()
    assert (tmp_path / "canary").exists()


def test_a_plain_checkpoint_is_still_read(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save({"state_dict": {"weight": torch.full((2, 3), 5.0)}, "meta": {"epoch": 4}}, path)
    found = CheckpointLoader.load_checkpoint(str(path), "cpu")
    assert torch.equal(found["state_dict"]["weight"], torch.full((2, 3), 5.0))
    assert found["meta"] == {"epoch": 4}
    with pytest.raises(MissingInputError, match=r"Did you mean 'plain\.pth'"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "plane.pth"), "cpu")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "epoch_1.pth"
    save_checkpoint({"state_dict": {"a": torch.ones(7)}}, str(path))
    before = path.read_bytes()
    whole = Path.write_bytes

    def half(self, data):
        whole(self, data[: len(data) // 2])
        raise error("in the middle")

    monkeypatch.setattr(Path, "write_bytes", half)
    for target in (path, tmp_path / "epoch_2.pth"):
        with pytest.raises(error):
            save_checkpoint({"state_dict": {"a": torch.zeros(7)}}, str(target))
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_1.pth"]
    assert path.read_bytes() == before


def test_a_killed_save_leaves_no_file_of_that_name(tmp_path):
    """The process ends in the middle of writing, without a chance to tidy up."""
    path = tmp_path / "epoch_1.pth"
    program = (
        "import os, pathlib, sys\n"
        "import swin_dense.openmmlab\n"
        "from mmengine.fileio import get_file_backend\n"
        "whole = pathlib.Path.write_bytes\n"
        "def half(self, data):\n"
        "    whole(self, data[:5])\n"
        "    os._exit(9)\n"
        "pathlib.Path.write_bytes = half\n"
        "get_file_backend(sys.argv[1]).put(b'0123456789', sys.argv[1])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment, capture_output=True
    )
    assert done.returncode == 9, done.stderr
    assert not path.exists()
    assert not list(tmp_path.glob("*.pth"))  # what is left does not look like a checkpoint


def test_writing_makes_folders_and_an_ordinary_file(tmp_path):
    path = tmp_path / "new/deep.bin"
    backend = get_file_backend(str(path))
    assert isinstance(backend, weights.WholeFileBackend)
    backend.put(b"abc", path)
    assert backend.get(path) == b"abc"
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(weights, "print_log", lambda text, **_: lines.append(text))
    return lines


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({"stem": nn.Linear(3, 5), "head": nn.Linear(5, 2)})


def test_lay_in_loads_what_fits_and_says_what_did_not(said):
    module = model()
    kept = module["head"].weight.detach().clone()
    state = {
        "module.stem.weight": torch.full((5, 3), 2.0),
        "module.stem.bias": torch.full((5,), 3.0),
        "module.head.weight": torch.zeros(4, 5),
        "module.extra": torch.zeros(1),
    }
    match = weights.lay_in(module, state, "some.pth", 0.5, ADVICE)
    assert torch.equal(module["stem"].weight, torch.full((5, 3), 2.0))
    assert torch.equal(module["stem"].bias, torch.full((5,), 3.0))
    assert torch.equal(module["head"].weight, kept)
    assert match.share == pytest.approx(20 / 32)
    assert set(match.missing) == {"head.bias"}
    assert match.reshaped == {"head.weight": ((2, 5), (4, 5))}
    (report,) = said
    assert "some.pth: 2 tensors fit, 62.5%" in report
    assert "head.weight (2, 5) in the model, (4, 5) in the file" in report
    assert "not in the file (1): head.bias" in report
    assert "not in the model (1): extra" in report


def test_lay_in_refuses_too_little_and_changes_nothing(said):
    module = model()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {"stem.weight": torch.zeros(5, 3)}
    with pytest.raises(InputError, match=rf"(?s)some\.pth .* 50% .*46\.9%.*{ADVICE}"):
        weights.lay_in(module, state, "some.pth", 0.5, ADVICE)
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not said


def scaled(state, factor):
    return {name: torch.full_like(tensor, factor) for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": {**state, "classifier.weight": torch.ones(7, 2)}},
        lambda state: {"state_dict": {f"backbone.{n}": t for n, t in state.items()}},
        lambda state: {"model": {f"backbone.{n}": t for n, t in state.items()}},
        lambda state: {
            "state_dict": {
                **{f"backbone.{n}": t for n, t in state.items()},
                "neck.stem.weight": torch.ones(5, 3),
                "stem.weight": torch.ones(5, 3),  # not the backbone's
            }
        },
        lambda state: {"state_dict": {f"module.{n}": t for n, t in state.items()}},
    ],
)
def test_pretrained_in_every_wrapping(tmp_path, said, wrap):
    backbone, path = model(), str(tmp_path / "pretrained.pth")
    torch.save(wrap(scaled(backbone.state_dict(), 4.0)), path)
    match = weights.load_pretrained(backbone, path)
    assert match.share == 1
    assert all((tensor == 4).all() for tensor in backbone.state_dict().values())
    assert len(said) == 1


def test_pretrained_of_a_distributed_detector(tmp_path, said):
    backbone, path = model(), str(tmp_path / "pretrained.pth")
    state = scaled(backbone.state_dict(), 4.0)
    torch.save({"state_dict": {f"module.backbone.{n}": t for n, t in state.items()}}, path)
    assert weights.load_pretrained(backbone, path).share == 1


def test_pretrained_may_lack_a_tenth_and_no_more(tmp_path, said):
    backbone, path = model(), str(tmp_path / "pretrained.pth")
    state = backbone.state_dict()
    del state["head.bias"]  # 2 of 32 numbers
    torch.save({"model": state}, path)
    assert weights.load_pretrained(backbone, path).share == pytest.approx(30 / 32)
    del state["stem.bias"]  # 5 more
    torch.save({"model": state}, path)
    with pytest.raises(InputError, match=r"(?s)90% .*78\.1%.*same architecture"):
        weights.load_pretrained(backbone, path)


def test_class_names_wherever_they_are_stored():
    stored = {"meta": {"dataset_meta": {"classes": ["a", "b"]}}}
    assert weights.class_names(stored) == ("a", "b")
    assert weights.class_names({"meta": {"classes": ["c"]}}) == ("c",)
    for nothing in ({}, {"meta": None}, {"meta": {"dataset_meta": None}}):
        assert weights.class_names(nothing) is None


@pytest.mark.parametrize("ordered", [False, True])
def test_other_classes_are_listed_on_both_sides(ordered):
    weights.require_classes(("a", "b"), ("a", "b"), "some.pth", ordered)
    with pytest.raises(InputError, match=r"3 classes, .* has 2\. .*\['b', 'c'\].*\['d'\]"):
        weights.require_classes(("a", "b", "c"), ("a", "d"), "some.pth", ordered)


def test_another_order_counts_where_values_carry_no_names():
    weights.require_classes(("a", "b"), ("b", "a"), "some.pth", ordered=False)
    with pytest.raises(InputError, match=r"(?s)another order.*\['a', 'b'\].*\['b', 'a'\]"):
        weights.require_classes(("a", "b"), ("b", "a"), "some.pth", ordered=True)
