"""What a checkpoint may ask for, counted before it is given: unpacked bytes, objects, memory.

A pickle of some hundred bytes can name one tuple at so many places that hashing it never ends, an
archive can unpack to a thousand times its size, and a tensor can have more numbers than the file.
`require_torch` and `require_pickle` look at bytes alone and build nothing; `require_tensors` looks
at what was built, without touching a number.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from swin_dense.file_limits import (
    PICKLE_NESTING,
    PICKLE_OBJECTS,
    PICKLE_STEPS,
    RECORD_BYTES,
    UNPACKED_BYTES,
    Limit,
)

ARCHIVE = b"PK"
OPS = {op.code.encode("latin1"): op for op in pickletools.opcodes}
PICKLES = 5  # of torch's older form, one after another
SHARED = 16  # names that may share one storage; heads of several layers do
# Torch's reader of tensors and plain values calls these with numbers alone, and they give memory,
# or a tensor without any, however small the file is.
WITHOUT_CONTENT = frozenset(
    {
        "bytearray",
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_nested_tensor",
        "_rebuild_sparse_tensor",
        "_rebuild_wrapper_subclass",
        "TypedStorage",
        "UntypedStorage",
    }
)


class TooMuchError(pickle.UnpicklingError):
    """A file asks for more than a limit; the text says for what, and how the limit is raised."""


def require_torch(file: Path | BinaryIO, size: int) -> None:
    """Look through a file of torch, of either form.

    Args:
        size: of the file, in bytes.

    Raises:
        TooMuchError: reading it would take more than the limits.
        ValueError: it is damaged.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            require_torch(opened, size)
        return
    start = file.tell()
    archive = file.read(len(ARCHIVE)) == ARCHIVE
    file.seek(start)
    if archive:
        _require_archive(file, size)
    else:
        for _ in range(PICKLES):
            require_pickle(file)
    file.seek(start)


def _require_archive(file: BinaryIO, size: int) -> None:
    try:
        # The reader that torch.load reads with: another one could be shown another directory.
        reader: Any = torch._C.PyTorchFileReader(file)
        sizes = {name: reader.get_record_size(name) for name in reader.get_all_records()}
    except Exception as error:
        raise ValueError(str(error)) from error
    # Torch stores what it writes as it is, each record in bytes of its own.
    _require(UNPACKED_BYTES, sum(sizes.values()) - size)
    # Asked of the reader, not of `sizes`: to torch, Data.pkl is data.pkl.
    if reader.has_record("data.pkl"):
        _require(RECORD_BYTES, reader.get_record_size("data.pkl"))
        storages = {name.removeprefix("data/") for name in sizes}
        require_pickle(io.BytesIO(reader.get_record("data.pkl")), storages)


def require_pickle(file: BinaryIO, storages: Collection[str] = ()) -> None:
    """Count the steps of one pickle, and the objects in each object that it would build.

    Args:
        storages: names of those that it may ask for; asked for by capital letters instead of small
            ones, one would be there once for each way to write it.

    Raises:
        TooMuchError: there are more than the limits, or a call gives memory for a number.
        ValueError: it is damaged.
    """
    counter = _Counter(storages)
    try:
        while (op := OPS[file.read(1)]).name != "STOP":
            if op.name == "STRING":  # of Python 2, in any encoding
                argument: Any = file.readline()
            else:
                argument = op.arg.reader(file) if op.arg else None
            counter.step(op, argument)
    except TooMuchError:
        raise
    except Exception as error:  # whatever a stranger's bytes can raise
        raise ValueError(f"a pickle that ends within something, {error!r:.100}") from error


def require_tensors(tensors: Iterable[Any], size: int) -> None:
    """Require that tensors are numbers of the file: dense, in memory, not more than it has.

    Args:
        size: bytes that the file has, unpacked.

    Raises:
        TooMuchError: a tensor is of another kind, or one storage is there too many times.
    """
    storages: dict[int, int] = {}
    total = 0
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            continue
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else "without numbers or sparse"
            raise TooMuchError(
                f"a tensor of {list(tensor.shape)} that is {kind}. Weights are dense tensors: save "
                "them so"
            )
        storage = tensor.untyped_storage()
        needed = tensor.numel() * tensor.element_size()
        if needed > storage.nbytes() + 2**20:
            raise TooMuchError(
                f"a tensor of {list(tensor.shape)} over {storage.nbytes()} bytes, each of which "
                "would stand for many. Save it after .contiguous()"
            )
        if needed:
            storages[storage.data_ptr()] = storage.nbytes()
        total += needed
    there = sum(storages.values())
    if there > size + UNPACKED_BYTES.most:
        raise TooMuchError(f"tensors of {there:,} bytes together, in a file of {size:,}")
    if total > SHARED * there + UNPACKED_BYTES.most:
        raise TooMuchError(
            f"tensors of {total:,} bytes over {there:,} that they share, at most {SHARED} times as "
            "many are read. Save shared ones once"
        )


def _require(limit: Limit, count: int) -> None:
    if count > limit.most:
        raise TooMuchError(limit.rule(count))


class _Counter:
    """Follow a pickle with the counts of objects in the place of objects.

    A count is [objects, nesting], and for a name that could be called its last part. Objects shared
    count at each place, as they do for who hashes, compares or shows them.
    """

    def __init__(self, storages: Collection[str]) -> None:
        self.storages = {name.lower(): name for name in storages}
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps = 0
        self.limits = PICKLE_STEPS.most, PICKLE_OBJECTS.most, PICKLE_NESTING.most

    def step(self, op: Any, argument: Any) -> None:
        self.steps += 1
        if self.steps > self.limits[0]:
            raise TooMuchError(PICKLE_STEPS.rule())
        name, stack = op.name, self.stack
        if name in LEAVES:
            stack.append(LEAF)
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            if argument > self.limits[0]:  # the reader makes room for all places before
                raise TooMuchError(PICKLE_STEPS.rule(argument))
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(MARK)
        elif name in OPENED:
            stack.append([1, 1])
        elif name in JOINED:
            taken, into = JOINED[name]
            parts = self._above_mark() if taken is None else self._top(taken)
            if name in CALLS and parts:
                self._require_call(parts[0] if not into else stack[-1])
            self._join(stack[-1] if into else None, parts)
        elif name in ("GLOBAL", "INST"):
            called = [1, 1, argument.split(" ")[-1], argument]
            if name == "INST":
                self._require_call(called)
                self._join(None, self._above_mark())
            else:
                stack.append(called)
        elif name == "STACK_GLOBAL":
            module, last = self._top(2)
            stack.append([1, 1, last[2], f"{module[2]} {last[2]}"])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._above_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif op.stack_after:  # a text, a number, None
            stack.append(self._text(argument) if isinstance(argument, str) else LEAF)

    def _text(self, text: str) -> list[Any]:
        short = text if len(text) < 64 else ""
        if self.storages.get(short.lower(), short) != short:
            raise TooMuchError(f"a storage {short!r} whose name is written in other letters there")
        return [1, 0, short]

    def _top(self, count: int) -> list[Any]:
        parts = self.stack[-count:]
        if len(parts) < count or MARK in parts:
            raise ValueError("it takes what it has not made")
        del self.stack[-count:]
        return parts

    def _above_mark(self) -> list[Any]:
        parts = []
        while (part := self.stack.pop()) is not MARK:
            parts.append(part)
        return parts[::-1]

    def _join(self, into: Any, parts: list[Any]) -> None:
        """Put parts into a new object, or into one that is there."""
        count = sum(part[0] for part in parts)
        nesting = max((part[1] for part in parts), default=0) + 1
        if into is None:
            into = [1, 1]
            self.stack.append(into)
        elif into is MARK or into is LEAF:
            raise ValueError("it puts something into what holds nothing")
        into[0], into[1] = into[0] + count, max(into[1], nesting)
        if into[0] > self.limits[1]:
            raise TooMuchError(PICKLE_OBJECTS.rule())
        if into[1] > self.limits[2]:
            raise TooMuchError(PICKLE_NESTING.rule())

    @staticmethod
    def _require_call(called: Any) -> None:
        last = called[2] if len(called) > 2 else ""
        if last in WITHOUT_CONTENT or (last.endswith("Tensor") and "torch" in called[-1]):
            raise TooMuchError(
                f"a call of {called[-1].replace(' ', '.')}, which gives memory, or a tensor, that "
                "is not in the file. Weights are tensors with their numbers: save them so"
            )


MARK: list[Any] = [0, 0]
LEAF: list[Any] = [1, 0]
LEAVES = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"})
OPENED = ("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "EMPTY_TUPLE")
# Name -> how many are taken (None: all above the mark), and whether they go into what lies below.
JOINED: dict[str, tuple[int | None, bool]] = {
    **{f"TUPLE{count}": (count, False) for count in (1, 2, 3)},
    **dict.fromkeys(("TUPLE", "LIST", "DICT", "FROZENSET", "OBJ"), (None, False)),
    "APPEND": (1, True),
    "SETITEM": (2, True),
    **dict.fromkeys(("APPENDS", "SETITEMS", "ADDITEMS"), (None, True)),
    "BUILD": (1, True),
    "BINPERSID": (1, False),
    "REDUCE": (2, False),
    "NEWOBJ": (2, False),
    "NEWOBJ_EX": (3, False),
}
CALLS = ("OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX")
