"""mmengine's ways to a checkpoint: none unpickles, and all tell mmdet and mmseg the classes."""

import contextlib
import pickle

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.checkpoints import files
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.engine import loaders, weights


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


@pytest.mark.parametrize("source", ["https://x.org/w.pth", "hf://a/b/w.pth", "torchvision://r"])
def test_addresses_go_through_our_downloads(monkeypatch, source):
    asked = []

    def locate(source, say):
        asked.append(source)
        raise InputError("far")

    monkeypatch.setattr(weights.downloads, "locate", locate)
    monkeypatch.setattr(
        loaders.mmengine_checkpoint, "get_torchvision_models", lambda: {"r": "https://x.org/r"}
    )
    with pytest.raises(InputError, match="far"):
        CheckpointLoader._get_checkpoint_loader(source)(source)
    assert len(asked) == 1


def test_a_name_a_catalogue_lacks_gets_a_hint(monkeypatch):
    monkeypatch.setattr(
        loaders.mmengine_checkpoint, "get_torchvision_models", lambda: {"resnet50": "https://x.org"}
    )
    with pytest.raises(
        InputError, match=r"torchvision knows no 'resnet5'\. Did you mean 'resnet50'"
    ):
        CheckpointLoader.load_checkpoint("torchvision://resnet5")


def test_a_table_of_the_user_s_may_name_files(monkeypatch, tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(2, 5)}}, tmp_path / "mine.pth")
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    monkeypatch.setattr(
        loaders.mmengine_checkpoint, "get_external_models", lambda: {"mine": "mine.pth"}
    )
    found = CheckpointLoader.load_checkpoint("open-mmlab://mine", "cpu")
    assert found["state_dict"]["weight"].shape == (2, 5)


def test_private_stores_cannot_unpickle_either(tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    torch.save(Hostile(canary), tmp_path / "w.pth")
    there = contextlib.nullcontext(str(tmp_path / "w.pth"))
    monkeypatch.setattr(loaders, "get_local_path", lambda *_, **__: there)
    with pytest.raises(InputError, match="reading it would run code"):
        CheckpointLoader.load_checkpoint("cluster:s3://bucket/w.pth")
    assert not canary.exists()
    with pytest.raises(InputError, match=r"pavi://x lies in a store that is not supported"):
        CheckpointLoader.load_checkpoint("pavi://x")


def test_no_scheme_of_mmengine_is_left():
    assert set(CheckpointLoader._schemes) == set(loaders.SCHEMES)
    assert set(CheckpointLoader._schemes.values()) == set(loaders.SCHEMES.values())


def test_names_of_classes_stand_where_mmdet_and_mmseg_look(tmp_path):
    path = tmp_path / "w.safetensors"
    meta = {"classes": ["cat", "sky", "dog"], "thing_classes": ["cat", "dog"], "seed": 3}
    files.write_weights(path, {"a": torch.zeros(2)}, meta)
    found = CheckpointLoader.load_checkpoint(str(path))["meta"]
    assert found["dataset_meta"]["classes"] == ("cat", "sky", "dog")
    assert found["dataset_meta"]["thing_classes"] == ("cat", "dog")
    assert len(set(found["dataset_meta"]["palette"])) == 3
    assert found["seed"] == 3


@pytest.mark.parametrize(
    "meta", [{"dataset_meta": {"classes": ("a",)}}, {"CLASSES": ("a",), "PALETTE": [(1, 2, 3)]}]
)
def test_what_a_file_says_of_its_classes_stays(tmp_path, meta):
    torch.save({"state_dict": {"a": torch.zeros(2)}, "meta": meta}, tmp_path / "w.pth")
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "w.pth"))["meta"] == meta
