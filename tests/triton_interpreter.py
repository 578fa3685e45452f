"""Triton in processes of its own: one in which it interprets, one in which it compiles.

The process of the tests imports none of it: torch does other things where it finds Triton, and
what is imported under TRITON_INTERPRET stays as it is.
"""

import atexit
import importlib
import importlib.machinery
import io
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

FOLDER = Path(sys.prefix) / "peers"  # as in peers.py, which imports more
OPS = "swin_dense.ops.triton"
PROGRAMS = 2  # of a backward that deals windows to programs: few, so that each has several


@contextmanager
def triton_process(**environment: str) -> Iterator[Callable[..., Any]]:
    """Give call(function, *arguments), which runs a function of this file there, and its result.

    The tests that need it are skipped where Triton is not installed.
    """
    where = [*sys.path, str(FOLDER)]
    found = importlib.machinery.PathFinder.find_spec("triton", where)
    if found is None or found.origin is None:
        pytest.skip("triton is not installed")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        with mock.patch.dict(os.environ, environment):  # torch may import Triton with itself
            pool.submit(_enter).result()
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _enter() -> None:
    sys.path.append(str(FOLDER))
    torch.set_num_threads(1)
    # At its end Triton's library lists what it has not freed.
    atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), 2)


def run(name: str, packed: bytes) -> bytes:
    """Call "file.function" on packed arguments. Tensors travel by value, with their strides."""
    file, function = name.split(".")
    module = importlib.import_module(f"{OPS}.{file}")
    if file == "window_attention":
        module._PROGRAMS = PROGRAMS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of NaN and division by 0
        result = getattr(module, function)(*unpack(packed))
    return pack(result)


def pack(what: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def unpack(packed: bytes) -> Any:
    return torch.load(io.BytesIO(packed), weights_only=True)


def compile_ahead(file: str, which: int, dtype: str, capability: int, fixed: dict) -> int:
    """Compile a kernel for a card that need not be there: the number of bytes of its code.

    Args:
        which: 0 for the kernel of the forward, 1 for that of the backward.
        dtype: of qkv or value, as Triton writes it.
        fixed: what the file fixes when the kernel is compiled, and how it is.
    """
    kernel = importlib.import_module(f"{OPS}.{file}")._kernels()[which]
    compiler = importlib.import_module("triton.compiler")
    backends = importlib.import_module("triton.backends.compiler")
    constants = {name: x for name, x in fixed.items() if name.isupper()}
    options = {name: x for name, x in fixed.items() if not name.isupper()}
    signature = {x: _kind(x, dtype, x in constants) for x in kernel.arg_names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind[0] == "*"]
    aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}
    source = compiler.ASTSource(kernel, signature, constants, aligned)
    target = backends.GPUTarget("cuda", capability, 32)
    return len(compiler.compile(source, target=target, options=options).asm["cubin"])


def _kind(name: str, dtype: str, fixed: bool) -> str:
    if fixed:
        return "constexpr"
    if name.startswith("n_"):
        return "i32"
    if name == "sizes":
        return "*i64"
    return f"*{dtype}" if name in ("qkv", "pad", "out", "grad", "by_qkv", "value") else "*fp32"


def stand_in(family: str) -> dict[str, Any]:
    """Leave a kernel out, as if it had failed its self-check, and tell what comes in its place.

    The CPU stands in for a card: Triton's interpreter computes there.
    """
    from swin_dense import ops
    from swin_dense.ops import reference, self_check, trust

    trust.verdicts.path = lambda device: Path(os.devnull)
    # The interpreter takes seconds for a window: one case of each family will do.
    about = ("windows of 8, cosine, shifted", "three levels")
    mine = [c for c in self_check.CASES if c.about in about and c.op == family]
    cpu, told = torch.device("cpu"), {}
    with mock.patch.object(self_check, "CASES", mine):
        substitute = trust._substitute(family, cpu, torch.float32, f"{family} is wrong.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trust.place(substitute, family, cpu, torch.float32)
    told["said"] = [str(one.message) for one in said]
    called, compute = [], getattr(substitute.ops, family)
    setattr(substitute.ops, family, lambda *given: called.append(0) or compute(*given))
    if family == "window_attention":
        choose = sys.modules["swin_dense.ops.window_attention"].choose
        qkv = torch.randn(1, 4, 5, 3, 2, 8, generator=torch.Generator().manual_seed(0))
        told["chosen"] = [choose(qkv, window).name for window in (3, 12)]
        given = qkv, torch.zeros(2, 9, 9), torch.zeros(3, 2, 8), 3, 1
        outs = [ops.window_attention(*given, back_end=name) for name in (None, "plain")]
    else:
        value, locations = torch.rand(1, 6, 2, 4), torch.rand(1, 5, 2, 1, 2, 2)
        weights, sizes = torch.rand(1, 5, 2, 1, 2), torch.tensor([[2, 3]])
        given = value, sizes, locations, weights
        outs = [call(*given) for call in (ops.ms_deform_attn, reference.ms_deform_attn)]
    told["apart"] = float((outs[0] - outs[1]).abs().max())
    told["called"] = len(called)
    return told
