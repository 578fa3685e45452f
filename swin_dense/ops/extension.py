"""Finds the compiled kernels and puts them in place of the references.

They are two libraries beside this file, one per kind of device, that setup.py builds. Neither
knows Python, and both are good for any torch from 2.10 on. Where they are missing every op is its
reference, and MISSING says why.
"""

import ctypes
import os
from pathlib import Path

import torch

_CPU = Path(__file__).with_name("_cpu.so")
_CUDA = Path(__file__).with_name("_cuda.so")
_BUILD = "pip install --no-build-isolation --no-deps -e ."
_SWITCH = "SWIN_DENSE_KERNELS"

_loaded: dict[str, str] = {}


def loaded() -> dict[str, str]:
    """Kind of device -> what its kernels are compiled for, of the libraries in use."""
    return dict(_loaded)


def describe() -> str:
    """Return one line for a report: "kernels: cpu (avx512), cuda not built"."""
    if MISSING is not None:
        return f"kernels: none, {MISSING}"
    parts = [f"{kind} ({details})" for kind, details in _loaded.items()]
    if torch.version.cuda is not None and "cuda" not in _loaded:
        parts.append("cuda not built")
    return "kernels: " + ", ".join(parts)


def _why_missing() -> str | None:
    switch = os.environ.get(_SWITCH, "on")
    if switch not in ("on", "off"):
        raise ValueError(f"{_SWITCH} is 'on' or 'off', not {switch!r}. Correct or unset it.")
    if switch == "off":
        return f"switched off by {_SWITCH}=off"
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 10):
        return f"compiled kernels need torch 2.10 or later, this is {torch.__version__}"
    if not _CPU.exists() and not _CUDA.exists():
        return f"not built; in a checkout, with a C++ compiler, run: {_BUILD}"
    return None


def _load() -> None:
    if _CPU.exists():
        level = _open(_CPU).swin_dense_cpu_level
        level.restype = ctypes.c_char_p
        _loaded["cpu"] = level().decode()
    if _CUDA.exists() and torch.version.cuda is not None:
        built = _open(_CUDA).swin_dense_cuda_version() // 1000
        if built != int(torch.version.cuda.split(".")[0]):
            raise RuntimeError(
                f"{_CUDA} was built with CUDA {built}, torch {torch.__version__} with CUDA "
                f"{torch.version.cuda}. Point CUDA_HOME to a CUDA of torch's version and build "
                f"again ({_BUILD}), or set {_SWITCH}=off to do without."
            )
        _loaded["cuda"] = f"CUDA {built}"


def _open(path: Path) -> ctypes.CDLL:
    try:
        torch.ops.load_library(str(path))
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeError(
            f"{path} does not load: {error.__cause__ or error}. Build it again ({_BUILD}), or "
            f"remove it or set {_SWITCH}=off to do without."
        ) from error


MISSING: str | None = _why_missing()
if MISSING is None:
    _load()
