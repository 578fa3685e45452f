"""Weight files: what is read, what is refused, and what an interrupted write leaves."""

import json
import os
import pickle
import struct
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

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


@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w.bin", "w"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_bare_pickle_does_not_run(tmp_path, name, protocol):
    canary = tmp_path / "canary"
    (tmp_path / name).write_bytes(pickle.dumps(Hostile(canary), protocol=protocol))
    with pytest.raises(InputError):
        files.read(tmp_path / name)
    assert not canary.exists()


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.mark.parametrize("place", ["state_dict", "key", "meta", "optimizer"])
def test_code_anywhere_in_an_archive_does_not_run(tmp_path, place):
    canary = tmp_path / "canary"
    bad = Runs(f"touch {canary}")
    content = {"state_dict": dict(STATE), "meta": {}}
    if place == "state_dict":
        content["state_dict"]["b"] = bad
    elif place == "key":
        content[bad] = 1
    else:
        content[place] = [{"deep": (bad,)}]
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"posix\.system|would run code"):
        files.read(tmp_path / "w.pth")
    assert not canary.exists()


def test_the_refusal_says_how_to_trust_a_file(tmp_path):
    torch.save({"state_dict": STATE, "meta": Runs("true")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"tools/convert\.py --trust \S*w\.pth w\.safetensors"):
        files.read(tmp_path / "w.pth")


def test_a_trusted_file_is_unpickled(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"state_dict": STATE, "meta": Hostile(canary)}, tmp_path / "w.pth")
    read = files.read(tmp_path / "w.pth", trust=True)
    assert torch.equal(read["state_dict"]["a.weight"], STATE["a.weight"])
    assert canary.exists()


def test_trust_without_the_package_it_needs_is_no_traceback(tmp_path):
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02cno.such.package\nThing\n.")
    with pytest.raises(InputError, match=r"ModuleNotFoundError.*packages that it was written with"):
        files.read(tmp_path / "w.pkl", trust=True)


def test_detectron2_files_are_read(tmp_path):
    content = {"model": {"backbone.a": np.arange(6, dtype="f4").reshape(2, 3)}, "__author__": "x"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
    read = files.read(tmp_path / "w.pkl")
    assert torch.equal(read["state_dict"]["backbone.a"], torch.arange(6.0).reshape(2, 3))


def test_checkpoints_of_mmengine_with_their_curves_are_read(tmp_path):
    """All files of mmdet's and mmseg's model zoos are such; the curves are left out."""
    logging = pytest.importorskip("mmengine.logging")
    hub = logging.MessageHub("test_files")
    hub.update_scalar("train/loss", 1.5)
    hub.update_scalar("train/loss", torch.tensor(2.5))
    hub.update_info("iter", 3)
    hub.update_info("array", np.arange(3))
    content = {"meta": {"epoch": 1}, "state_dict": STATE, "message_hub": hub.state_dict()}
    torch.save(content, tmp_path / "epoch_1.pth")
    with pytest.raises(pickle.UnpicklingError):  # else there was nothing to do
        torch.load(tmp_path / "epoch_1.pth", weights_only=True)
    read = files.read(tmp_path / "epoch_1.pth")
    assert torch.equal(read.weights["a.weight"], STATE["a.weight"])
    assert read["meta"] == {"epoch": 1}
    assert read["message_hub"]["log_scalars"] == {}
    assert read["message_hub"]["runtime_info"]["array"].tolist() == [0, 1, 2]


def test_containers_stay_what_they_are(tmp_path):
    """A schedule's milestones are a Counter; read as anything else it would be lost on resuming."""
    content = {"state_dict": STATE, "param_schedulers": [{"at": Counter([3, 3, 5])}]}
    torch.save(content, tmp_path / "w.pth")
    read = files.read(tmp_path / "w.pth")
    assert read["param_schedulers"] == [{"at": Counter([3, 3, 5])}]
    assert type(read["param_schedulers"][0]["at"]) is Counter


def test_what_was_read_can_be_saved_for_other_readers(tmp_path):
    torch.save({"model": STATE, "meta": {"x": 1}}, tmp_path / "w.pth")
    torch.save(files.read(tmp_path / "w.pth"), tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert torch.equal(again["state_dict"]["a.weight"], STATE["a.weight"])
    assert again["meta"] == {"x": 1}


def test_what_is_no_tensor_among_the_weights_is_told(tmp_path):
    torch.save({"model": {**STATE, "epoch": 3, "note": "x"}}, tmp_path / "w.pth")
    read = files.read(tmp_path / "w.pth")
    assert set(read.weights) == set(STATE)
    assert read.no_tensors == {"epoch": "no tensor but int", "note": "no tensor but str"}


def test_the_name_a_distributed_run_adds_is_dropped(tmp_path):
    torch.save({f"module.{n}": t for n, t in STATE.items()}, tmp_path / "w.pth")
    assert set(files.read(tmp_path / "w.pth").weights) == set(STATE)


def test_the_name_that_compiling_adds_is_dropped(tmp_path):
    torch.save({f"module._orig_mod.{n}": t for n, t in STATE.items()}, tmp_path / "w.pth")
    assert set(files.read(tmp_path / "w.pth").weights) == set(STATE)


OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("content", "average"),
    [
        ({"model": STATE, "model_ema": OTHER}, ""),
        ({"ema_state_dict": OTHER, "state_dict": STATE}, ""),
        ({"student": {"model": STATE}, "teacher": OTHER}, ""),
        ({"state_dict": {}, "state_dict_ema": STATE}, "state_dict_ema"),
        ({"teacher": {"network": STATE}, "epoch": 3}, "teacher"),
    ],
)
def test_an_average_is_taken_only_where_nothing_else_is(tmp_path, content, average):
    torch.save(content, tmp_path / "w.pth")
    read = files.read(tmp_path / "w.pth")
    assert all(torch.equal(read.weights[name], tensor) for name, tensor in STATE.items())
    assert read.average == average
    assert read.get("epoch") == content.get("epoch")


def test_a_dict_that_holds_itself_ends(tmp_path):
    content = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    for trust in (False, True):
        with pytest.raises(InputError, match="holds no weights"):
            files.read(tmp_path / "w.pth", trust=trust)


def test_a_safetensors_file_of_another_name(tmp_path):
    files.write_weights(tmp_path / "w.safetensors", STATE, {"classes": ["a"]})
    (tmp_path / "w.safetensors").rename(tmp_path / "w.bin")
    read = files.read(tmp_path / "w.bin")
    assert read["meta"] == {"classes": ["a"]}
    assert read["state_dict"]["a.weight"].dtype is torch.float32


def safetensors_of(header, body=b"\0" * 16):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


@pytest.mark.parametrize(
    "raw",
    [
        safetensors_of({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**60]}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}),
        safetensors_of({"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}),
        safetensors_of({"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 0]}}),
        safetensors_of({"a": 5}),
        safetensors_of(b"{" * 4000),
        safetensors_of({"__metadata__": {"swin_dense": "[" * 5000}}, b""),
        safetensors_of({"__metadata__": {"swin_dense": "not json"}}, b""),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_hostile_headers_are_no_traceback(tmp_path, raw):
    (tmp_path / "w.safetensors").write_bytes(raw)
    with pytest.raises(InputError, match=r"damaged or cut short|holds no weights"):
        files.read(tmp_path / "w.safetensors")


def test_an_archive_whose_tensors_claim_more_than_they_have(tmp_path):
    torch.save({"a": torch.zeros(4)}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as old:
        parts = {n: old.read(n) for n in old.namelist()}
    with zipfile.ZipFile(tmp_path / "huge.pth", "w") as new:
        for name, data in parts.items():
            new.writestr(name, data.replace(b"K\x04", b"K\x7f") if "data.pkl" in name else data)
    with pytest.raises(InputError, match="damaged"):
        files.read(tmp_path / "huge.pth")


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "w").write_bytes(b"abc")
    assert files.sha256(tmp_path / "w").startswith("ba7816bf8f01cfea414140de5dae2223")


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


@pytest.fixture
def shards(tmp_path):
    """Weights in a safetensors file and an archive of torch, and their index."""
    names = [f"model-0000{i}-of-00002.{kind}" for i, kind in ((1, "safetensors"), (2, "bin"))]
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / names[0])
    torch.save({"c": torch.full((4,), 5.0)}, tmp_path / names[1])
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": names[0], "b": names[0], "c": names[1]}
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": places}))
    return index, places


def test_the_files_of_an_index_are_joined(shards):
    state = files.read(shards[0])["state_dict"]
    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        "a": [1, 1], "b": [0, 0, 0], "c": [5, 5, 5, 5],
    }  # fmt: skip


def test_one_file_of_several_points_to_the_index(shards):
    index, places = shards
    with pytest.raises(InputError, match=rf"one of several files .* Give their index, {index}\."):
        files.read(index.with_name(places["a"]))
    index.unlink()
    assert files.read(index.with_name(places["a"]))["state_dict"].keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"c": "model-00003-of-00002.bin"},
            "of 2 files, and model-00003-of-00002.bin is not",
        ),
        ({"d": "model-00002-of-00002.bin"}, "promises 4 tensors, its files lack 1 .* first is d"),
        ({"c": "../model-00002-of-00002.bin"}, "names '../model-00002-of-00002.bin', which is no"),
        ({"c": "model.safetensors.index.json"}, "index.json', which is no file beside it"),
    ],
)
def test_an_index_that_does_not_hold_is_told(shards, change, says):
    index, places = shards
    index.write_text(json.dumps({"weight_map": {**places, **change}}))
    with pytest.raises(InputError, match=says):
        files.read(index)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"weight_map": 3}', "{", "[" * 100_000])
def test_json_of_another_kind_is_no_index(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match="is JSON but no index of weight files"):
        files.read(tmp_path / "x.json")
