"""Read arrays and tensors from a pickle without running anything of it.

A pickle names functions and calls them. Here each name stands for a function of ours that can do
nothing but make a tensor or a container; any other name ends the reading. This is how detectron2
files (a dict of numpy arrays, or of tensors pickled by `pickle`) are read.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_dense.checkpoints import bounds

KINDS = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"})


class RefusedError(pickle.UnpicklingError):
    """The pickle wants a name that is not allowed; the text is that name."""


def read(path: Path) -> Any:
    """Read the content of a pickle, its arrays as tensors.

    Raises:
        RefusedError: reading on would run code.
        bounds.TooMuchError: reading it would take more than the limits.
        pickle.UnpicklingError: it is damaged or no pickle.
    """
    with open(path, "rb") as file:
        try:
            bounds.require_pickle(file)
            file.seek(0)
            return finished(_Reader(file, encoding="latin1").load())
        except (RefusedError, bounds.TooMuchError):
            raise
        except Exception as error:  # whatever bytes made by a stranger can raise is theirs
            raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[f"{module}.{name}"]
        except KeyError:
            raise RefusedError(f"{module}.{name}") from None


class _Kind:
    """Stands for numpy.dtype: the code of the numbers and their byte order."""

    def __init__(self, code: str, *_: Any):
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def numbers(self, raw: bytes | bytearray | str) -> np.ndarray:
        if self.code not in KINDS:
            raise RefusedError(f"an array of {self.code!r}")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        native = np.dtype(self.order + self.code).newbyteorder("=")
        return np.frombuffer(raw, self.order + self.code).astype(native)


class _Array:
    """Stands for numpy.ndarray; its state arrives after it was made."""

    tensor: torch.Tensor

    def __init__(self, *_: Any):
        """Ignore what numpy would be told here: the state says it again."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, columns_first, raw = state
        if not isinstance(kind, _Kind):
            raise RefusedError("an array without a kind of numbers")
        whole = kind.numbers(raw).reshape(shape, order="F" if columns_first else "C")
        self.tensor = torch.from_numpy(np.ascontiguousarray(whole))


def _scalar(kind: _Kind, raw: bytes | str) -> int | float | bool:
    return kind.numbers(raw)[0].item()


def _from_buffer(raw: bytes | bytearray, kind: _Kind, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", raw))
    return array


def _bytes(text: str, encoding: str) -> bytes:
    """Stands for _codecs.encode, which would load a module for other encodings."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands for bytes, which old pickles call for an empty one."""
    return b""


def _storage(raw: bytes) -> Any:
    """Stands for torch's function of this name, which would unpickle everything."""
    bounds.require_torch(io.BytesIO(raw), len(raw))
    return torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)


def _parameter(tensor: torch.Tensor, *_: Any) -> torch.Tensor:
    return tensor


ALLOWED: dict[str, Callable] = {
    "_codecs.encode": _bytes,
    "collections.OrderedDict": OrderedDict,
    "numpy.dtype": _Kind,
    "numpy.ndarray": _Array,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch.storage._load_from_bytes": _storage,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    ALLOWED[f"{_core}.multiarray._reconstruct"] = _Array
    ALLOWED[f"{_core}.multiarray.scalar"] = _scalar
    ALLOWED[f"{_core}.numeric._frombuffer"] = _from_buffer
for _module in ("builtins", "__builtin__"):
    ALLOWED |= {f"{_module}.set": set, f"{_module}.frozenset": frozenset}
    ALLOWED[f"{_module}.bytes"] = _no_bytes


class Inert:
    """Stands for an object whose class is not needed: takes what it is given and drops it."""

    def __init__(self, *_: Any):
        """Nothing is made of what its maker made it of."""

    def __setstate__(self, state: Any) -> None:
        """Nothing is kept."""


# For torch's own reader of tensors and plain values: mmengine keeps the curves of a run beside the
# weights, in a class of its own around arrays.
STAND_INS: list[Callable | tuple[Callable, str]] = [
    (Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
    (Inert, "builtins.getattr"),  # of a method of that class; torch tells names of Python 2 so too
    *((stand_in, name) for name, stand_in in ALLOWED.items() if name.startswith("numpy")),
]


def finished(value: Any) -> Any:
    """Arrays become tensors, what is inert goes; containers of any kind stay what they are."""
    return _finished(value, {})


def _finished(value: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    """Do so with each object once, at however many places it is; `known` holds each and its id."""
    if isinstance(value, _Array):
        return value.tensor
    if type(value) is not tuple and not isinstance(value, dict | list):
        return value
    if id(value) in known:
        return known[id(value)][1]
    known[id(value)] = value, value  # one that holds itself ends here
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if isinstance(item, Inert):
                del value[key]
            elif (new := _finished(item, known)) is not item:
                value[key] = new
    elif isinstance(value, list):
        value[:] = [_finished(item, known) for item in value]
    else:
        known[id(value)] = value, tuple(_finished(item, known) for item in value)
    return known[id(value)][1]
