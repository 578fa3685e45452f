"""Checkpoints that ask for all memory, or for ever, are refused by file and rule."""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from swin_dense.checkpoints import bounds, files
from swin_dense.errors import InputError


def doubled(times=60):
    """Return the steps that make a tuple of two of a tuple of two ... of one number."""
    steps = b"K\x01\x85q\x00"
    for i in range(times):
        steps += b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
    return steps


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    """Return the step that makes a whole number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(*parts):
    return b"(" + b"".join(parts) + b"t"


def call(name, *arguments):
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + row(*arguments) + b"R"


def tensor(size=(4,), stride=(1,), numel=4, offset=0):
    storage = row(text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), whole(numel))
    shape = (row(*map(whole, sides)) for sides in (size, stride))
    hooks = call("collections OrderedDict")
    return call("torch._utils _rebuild_tensor_v2", storage + b"Q", whole(offset), *shape, b"\x89",
                hooks)  # fmt: skip


def state(**parts):
    return b"\x80\x02}(" + b"".join(text(name) + part for name, part in parts.items()) + b"u."


def archive(path, steps, records, packed=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", packed) as file:
        file.writestr("archive/data.pkl", steps)
        for name, data in records.items():
            file.writestr(f"archive/data/{name}", data)
        file.writestr("archive/version", "3\n")
    return path


PICKLES = {
    "shared": (doubled() + b".", "OBJECTS"),
    "a key": (b"}" + doubled() + b"K\x01s.", "OBJECTS"),
    "of a set": (b"\x8f(" + doubled() + b"\x90.", "OBJECTS"),
    "lists": (
        b"]q\x00" + b"".join(
            b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)
        ) + b".", "OBJECTS"),
    "nested": (b"N" + b"\x85" * 100_000 + b".", "NESTING"),
    "long": (b"](" + b"N" * 3_000 + b"e.", "STEPS"),
    "a far place": (b"Nr\0\0\0\x08.", "STEPS"),
    "a far place in digits": (b"Np99999999\n.", "STEPS"),
}  # fmt: skip


@pytest.mark.parametrize("form", ["pickle", "archive", "older"])
@pytest.mark.parametrize("which", PICKLES)
def test_a_pickle_that_never_ends_is_refused(tmp_path, monkeypatch, which, form):
    steps, rule = PICKLES[which]
    if rule == "STEPS":
        monkeypatch.setenv("SWIN_DENSE_MOST_PICKLE_STEPS", "2000")
    path = tmp_path / ("w.pkl" if form == "pickle" else "w.pth")
    if form == "pickle":
        path.write_bytes(b"\x80\x04" + steps)
    elif form == "archive":
        archive(path, b"\x80\x02" + steps, {"0": bytes(16)})
    else:
        parts = [torch.serialization.MAGIC_NUMBER, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(p, 2) for p in parts) + b"\x80\x02" + steps)
    with pytest.raises(InputError, match=rf"w\.p\w+ was not read.*SWIN_DENSE_MOST_PICKLE_{rule}="):
        files.read(path)


TENSORS = {
    "expanded": (state(w=tensor((10**12,), (0,))), "would stand for many"),
    "bytes for a number": (
        state(w=tensor(), x=call("builtins bytearray", whole(10**11))),
        r"a call of builtins\.bytearray",
    ),
    "floats for a number": (
        state(w=call("torch FloatTensor", whole(10**11))), r"a call of torch\.FloatTensor"),
    "a storage for a number": (
        state(w=tensor(), x=call("torch.storage UntypedStorage", whole(10**12))),
        r"a call of torch\.storage\.UntypedStorage",
    ),
    "no numbers": (
        state(w=call("torch._utils _rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n",
                     row(whole(10**12)), row(whole(1)), b"\x89")),
        "a call of torch._utils._rebuild_meta",
    ),
    "a view beyond": (state(w=tensor((10,))), "damaged"),
    "negative strides": (state(w=tensor(stride=(-1,))), "damaged"),
    "more than a whole number": (state(w=tensor((2**62, 4), (4, 1))), "damaged"),
    "more than its record": (state(w=tensor(numel=10**12)), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("which", TENSORS)
def test_a_tensor_that_is_not_in_the_file_is_refused(tmp_path, which):
    steps, says = TENSORS[which]
    path = archive(tmp_path / "w.pth", steps, {"0": bytes(16)})
    with pytest.raises(InputError, match=rf"w\.pth.*{says}"):
        files.read(path)


def test_a_tensor_of_one_of_several_files(tmp_path):
    archive(tmp_path / "a-00001-of-00001.bin", TENSORS["expanded"][0], {"0": bytes(16)})
    index = tmp_path / "a.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "a-00001-of-00001.bin"}}))
    with pytest.raises(InputError, match=r"a-00001-of-00001\.bin was not read.*stand for many"):
        files.read(index)


def test_an_archive_that_unpacks_to_more_is_refused_until_the_limit_is_raised(
    tmp_path, monkeypatch
):
    size = 2**20
    steps = state(w=tensor((size // 4,), numel=size // 4))
    path = archive(tmp_path / "w.pth", steps, {"0": bytes(size)}, zipfile.ZIP_DEFLATED)
    assert files.read(path)["state_dict"]["w"].numel() == size // 4
    monkeypatch.setenv("SWIN_DENSE_MOST_UNPACKED_BYTES", "1e6")
    with pytest.raises(InputError, match=r"deflated parts .*SWIN_DENSE_MOST_UNPACKED_BYTES=2e6"):
        files.read(path)
    monkeypatch.setenv("SWIN_DENSE_MOST_UNPACKED_BYTES", "2e6")
    files.read(path)


def test_one_record_under_many_names_is_refused(tmp_path, monkeypatch):
    """Its bytes are in the file once, and would be read for each name."""
    monkeypatch.setenv("SWIN_DENSE_MOST_UNPACKED_BYTES", "1e5")
    path = archive(tmp_path / "w.pth", state(w=tensor()), {"0": bytes(16), "big": bytes(50_000)})
    data = path.read_bytes()
    start, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    first = data.index(b"PK\x01\x02")
    entry = data[data.rindex(b"PK\x01\x02", first, start) : start]  # that of `big`
    more = b"".join(entry.replace(b"/big", b"/%03d" % i) for i in range(9))
    count, length = 4 + 9, end - first + len(more)
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, first, 0)
    path.write_bytes(data[:end] + more + tail)
    with pytest.raises(InputError, match="SWIN_DENSE_MOST_UNPACKED_BYTES"):
        files.read(path)


def test_one_storage_under_many_names_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_DENSE_MOST_UNPACKED_BYTES", "1e5")
    shared = torch.zeros(5000)
    torch.save({f"w{i}": shared for i in range(15)}, tmp_path / "few.pth")
    assert len(files.read(tmp_path / "few.pth").weights) == 15
    torch.save({f"w{i}": shared for i in range(40)}, tmp_path / "many.pth")
    with pytest.raises(InputError, match="at most 16 times"):
        files.read(tmp_path / "many.pth")


def test_a_bomb_within_the_storage_of_a_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_DENSE_MOST_UNPACKED_BYTES", "1e5")
    inner = archive(tmp_path / "i", state(w=tensor()), {"0": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    raw = inner.read_bytes()
    made = call("torch.storage _load_from_bytes", b"B" + struct.pack("<I", len(raw)) + raw)
    (tmp_path / "w.pkl").write_bytes(b"\x80\x03}" + text("w") + made + b"s.")
    with pytest.raises(InputError, match="SWIN_DENSE_MOST_UNPACKED_BYTES"):
        files.read(tmp_path / "w.pkl")


def test_a_pickle_is_found_as_torch_finds_it(tmp_path):
    """To torch's reader of archives, large and small letters are the same (found by mutations)."""
    path = archive(tmp_path / "w.pth", b"\x80\x02}" + doubled() + b"K\x01s.", {"0": bytes(16)})
    path.write_bytes(path.read_bytes().replace(b"archive/data.pkl", b"archive/Data.pkl"))
    with pytest.raises(InputError, match="SWIN_DENSE_MOST_PICKLE_OBJECTS"):
        files.read(path)


def test_a_storage_is_not_asked_for_in_other_letters(tmp_path):
    steps = state(w=tensor(), v=tensor().replace(text("0"), text("A")))
    path = archive(tmp_path / "w.pth", steps, {"0": bytes(16), "a": bytes(16)})
    with pytest.raises(InputError, match="written in other letters"):
        files.read(path)


@pytest.mark.parametrize("cut", [5, 100])
def test_an_archive_that_is_cut_off_would_run_no_code(tmp_path, cut):
    path = archive(tmp_path / "w.pth", state(w=tensor()), {"0": bytes(16)})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match="damaged or cut short"):
        files.read(path)


@pytest.mark.parametrize("older", [False, True])
def test_what_a_run_saves_is_far_below_the_limits(tmp_path, older):
    """Weights, the state of an optimizer and curves; counted, not read."""
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(30)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "message_hub": {"loss": np.arange(1000.0), "names": [("a", i) for i in range(1000)]},
    }
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not older)
    size = file.tell()
    file.seek(0)
    bounds.require_torch(file, size)
    assert file.tell() == 0
    tensors = OrderedDict(content["state_dict"])
    bounds.require_tensors([*tensors.values(), torch.empty(0, 10**15), "no tensor"], size)
