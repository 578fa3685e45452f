"""Pickles of arrays are read by a reader that can make arrays and nothing else."""

import builtins
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from swin_dense.checkpoints import pickles

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Calls:
    """Pickled, it asks the reader to call a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def written(tmp_path, content, protocol=2):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["<f4", ">f4", "f2", "f8", "i8", "u1", "b1"])
def test_arrays_of_each_kind_and_protocol(tmp_path, protocol, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    content = {"model": OrderedDict(a=array, turned=np.asfortranarray(array), none=array[:0])}
    content |= {"__author__": "them", "n": [1, 2.5, None, True], "one": array[1, 2]}
    found = pickles.read(written(tmp_path, content, protocol))
    for name, expected in content["model"].items():
        assert found["model"][name].numpy().tolist() == expected.tolist()
    assert found["model"]["a"].dtype == torch.from_numpy(array.astype(array.dtype.name)).dtype
    assert found["one"] == array[1, 2]
    assert (found["__author__"], found["n"]) == ("them", [1, 2.5, None, True])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_that_pickle_itself_wrote(tmp_path, protocol):
    """Mask2Former's converter writes such files."""
    turned = torch.arange(6.0).reshape(2, 3).t()
    content = {"model": {"t": turned, "p": torch.nn.Parameter(torch.ones(4).half())}}
    found = pickles.read(written(tmp_path, content, protocol))
    assert torch.equal(found["model"]["t"], turned)
    assert torch.equal(found["model"]["p"], torch.ones(4).half())


def test_pickles_of_python_2(tmp_path):
    """Its text is bytes: an array's numbers arrive as a string of latin-1."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    text = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS"
        + repr(raw)[1:].encode()
        + b"\ntb."
    )
    (tmp_path / "w.pkl").write_bytes(text)
    assert pickles.read(tmp_path / "w.pkl").tolist() == [1.5, -2.0]


def canaries(canary):
    """Ways to run code from a pickle; each would leave the file `canary`."""
    command = f"open({str(canary)!r}, 'w')"
    sh = f"touch {canary}"
    hidden = np.empty(1, object)
    hidden[0] = Calls(os.system, sh)
    return {
        "os.system": Calls(os.system, sh),
        "eval": Calls(builtins.eval, command),
        "exec": Calls(builtins.exec, command),
        "open": Calls(open, str(canary), "w"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "import": Calls(__import__, "antigravity"),
        "numpy's own runner": Calls(np.testing.runstring, command, {}),
        "numpy's loader": Calls(np.load, str(canary), None, True),
        "torch's loader": Calls(torch.load, str(canary)),
        "a path": Calls(Path.touch, canary),
        "in an array of objects": hidden,
        "as a key": {Calls(os.system, sh): 1},
        "deep": [({"x": (1, [Calls(os.system, sh)])},)],
    }


NAMES = list(canaries("x"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_pickle_runs(tmp_path, name, protocol):
    canary = tmp_path / "canary"
    content = {"model": {"a": np.ones(2)}, "x": canaries(canary)[name]}
    with pytest.raises(pickles.RefusedError):
        pickles.read(written(tmp_path, content, protocol))
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    """Else the test above proves nothing."""
    for name in ("os.system", "eval", "exec", "open", "numpy's own runner", "deep"):
        canary = tmp_path / "canary"
        pickle.loads(pickle.dumps(canaries(canary)[name]))
        assert canary.exists(), name
        canary.unlink()


def test_a_storage_inside_a_tensor_is_no_back_door(tmp_path):
    """Tensors in a pickle bring files of torch within them, which could be pickles of anything."""
    canary = tmp_path / "canary"
    torch.save(Calls(os.system, f"touch {canary}"), tmp_path / "inner", pickle_protocol=2)
    inner = (tmp_path / "inner").read_bytes()
    content = {"model": Calls(torch.storage._load_from_bytes, inner)}
    with pytest.raises(pickle.UnpicklingError):
        pickles.read(written(tmp_path, content))
    assert not canary.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02K\x01",  # no end
        b"\x80\x02R.",  # a call of nothing
        b"\x80\x02K\x01K\x02R.",  # a call of a number
        b"\x80\x02cnumpy\nndarray\nK\x01b.",  # a state for a class
        b"\x80\x02cnumpy\nndarray\n)R(K\x01(K\x02K\x03tNNX\x01\x00\x00\x00atb.",  # no kind
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo place in the far
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a text of 2^63 letters
        b"\x80\x02cos\nsystem.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x0bcollections\x8c\x10OrderedDict.copy\x93.",  # a way into what is allowed
        b"\x80\x02ccollections\nOrderedDict\n}\x86R.",
    ],
)
def test_broken_pickles_end_in_one_kind_of_error(tmp_path, raw):
    (tmp_path / "w.pkl").write_bytes(raw)
    try:
        pickles.read(tmp_path / "w.pkl")
    except pickle.UnpicklingError:
        return
    assert b"OrderedDict\n}" in raw  # the last one is sound


def test_numbers_must_fill_the_shape(tmp_path):
    array = np.arange(6.0)
    raw = pickle.dumps(array, protocol=2).replace(b"K\x06\x85", b"K\x09\x85")
    (tmp_path / "w.pkl").write_bytes(raw)
    with pytest.raises(pickle.UnpicklingError, match="reshape"):
        pickles.read(tmp_path / "w.pkl")
