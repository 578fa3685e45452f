"""What the kernels of this folder need of Triton: whether it can be used, and its compiler.

Triton comes with every torch that is built for CUDA. It is imported when a kernel is first needed,
not before. With TRITON_INTERPRET=1 in the environment by then, its interpreter runs the kernels on
tensors of any device, slowly: that is how they are tested.
"""

import functools
import importlib
import importlib.util
import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_OLDEST = (8, 0)  # compute capability that Triton compiles for


def why_not(tensor: Tensor) -> str | None:
    """Return the reason why no kernel of this folder can take the tensor, in words, or None."""
    if not _is_installed():
        return "triton is not installed"
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the Triton kernels compute in float32, float16 and bfloat16, not in {tensor.dtype}"
    if interpreting():
        return None
    if tensor.device.type != "cuda":
        return f"the Triton kernels run on cuda only, this is on {tensor.device}"
    capability = torch.cuda.get_device_capability(tensor.device)
    if capability < _OLDEST:
        return "Triton compiles for cards of capability 8.0 and later, this has {}.{}".format(
            *capability
        )
    if not _finds_c_compiler():
        return "Triton builds what launches its kernels with a C compiler, and none is on the path"
    return None


def interpreting() -> bool:
    """Tell whether Triton's interpreter is asked for in place of its compiler."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def kept_in(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a kernel gets and leaves numbers of `dtype`.

    The interpreter holds bfloat16 as bits, multiplies these and rounds towards 0: it is given
    float32, and the results are rounded afterwards.
    """
    return torch.float32 if interpreting() and dtype == torch.bfloat16 else dtype


def load(names: dict[str, Any], parts: Iterable[str], kernels: Iterable[str]) -> list[Any]:
    """Give a file of kernels its language, and its kernels to Triton.

    Args:
        names: globals of the file. Of these `tl` and `constexpr` become Triton's.
        parts: functions that the kernels call, for Triton to replace.
        kernels: functions to be launched. They are returned as kernel[grid] wants them.
    """
    triton = importlib.import_module("triton")
    names["tl"] = importlib.import_module("triton.language")
    names["constexpr"] = names["tl"].constexpr
    for name in parts:
        names[name] = triton.jit(names[name])
    found = []
    for name in kernels:
        # Maps come in many sizes: not one program for those that 16 divides and one for the rest.
        code = names[name].__code__
        sizes = [x for x in code.co_varnames[: code.co_argcount] if x.startswith("n_")]
        found.append(triton.jit(names[name], do_not_specialize=sizes))
    return found


def on(tensor: Tensor) -> AbstractContextManager:
    """Make the device of the tensor the current one: Triton launches there."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def options(warps: int, stages: int = 1) -> dict[str, Any]:
    """Return how a kernel is to be compiled: turns of its loop that are under way together.

    That a product and a sum may become one instruction, as with nvcc, is said because Triton warns
    that it will have to be.
    """
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}


def power_of_two(number: int, least: int, most: int) -> int:
    """Round up, between two limits that are powers of two themselves."""
    return min(max(1 << (number - 1).bit_length(), least), most)


@functools.cache
def _is_installed() -> bool:
    found = importlib.util.find_spec("triton")
    return found is not None and found.origin is not None  # a folder of that name is no package


@functools.cache
def _finds_c_compiler() -> bool:
    return "CC" in os.environ or any(map(shutil.which, ("gcc", "clang")))
