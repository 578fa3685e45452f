"""Finds the compiled kernels and puts them in place of the references.

They are two libraries beside this file, one per kind of device, that setup.py builds. Neither
knows Python, and both are good for any torch from 2.10 on. Where they are missing every op is its
reference, and MISSING says why.
"""

import ctypes
import os
import re
import warnings
from pathlib import Path

import torch

_CPU = Path(__file__).with_name("_cpu.so")
CUDA = Path(__file__).with_name("_cuda.so")
_BUILD = "pip install --no-build-isolation --no-deps -e ."
SWITCH = "SWIN_DENSE_KERNELS"

_BUILT = re.compile(rb"swin_dense: CUDA (\d+), architectures ([\w,+]*), tensor cores ([\w,+]*);")

_loaded: dict[str, str] = {}
_architectures: dict[bool, str] = {}
_UNFIT: str | None = None


def loaded() -> dict[str, str]:
    """Kind of device -> what its kernels are compiled for, of the libraries in use."""
    return dict(_loaded)


def describe() -> str:
    """Return one line for a report: "kernels: cpu (avx512), cuda not built"."""
    if MISSING is not None:
        return f"kernels: none, {MISSING}"
    parts = [f"{kind} ({details})" for kind, details in _loaded.items()]
    if torch.version.cuda is not None and "cuda" not in _loaded:
        parts.append("cuda not built" if _UNFIT is None else f"cuda not used: {_UNFIT}")
    return "kernels: " + ", ".join(parts)


def architectures(tensor_cores: bool) -> str | None:
    """Return what the CUDA library holds code for: "75,80,90+ptx"; None if it does not tell.

    Args:
        tensor_cores: of the ops that need them, which are built for fewer.
    """
    return _architectures.get(tensor_cores)


def runs_on(held: str, capability: tuple[int, int]) -> bool:
    """Tell whether code for one of the architectures `held` runs on a card of this capability.

    Code for a card runs on later ones of the same major number; PTX on every later one.
    """
    for name in filter(None, held.split(",")):
        number = int(name.removesuffix("+ptx"))
        built = divmod(number, 10)
        if built <= capability and (built[0] == capability[0] or name.endswith("+ptx")):
            return True
    return False


def switched_on(name: str) -> bool:
    """Read a variable of the environment that is "on", if unset, or "off".

    Raises:
        ValueError: it is something else.
    """
    switch = os.environ.get(name, "on")
    if switch not in ("on", "off"):
        raise ValueError(f"{name} is 'on' or 'off', not {switch!r}. Correct or unset it.")
    return switch == "on"


def _why_missing() -> str | None:
    if not switched_on(SWITCH):
        return f"switched off by {SWITCH}=off"
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 10):
        return f"compiled kernels need torch 2.10 or later, this is {torch.__version__}"
    if not _CPU.exists() and not CUDA.exists():
        return f"not built; in a checkout, with a C++ compiler, run: {_BUILD}"
    return None


def _load() -> str | None:
    """Load both libraries; return why that of CUDA is not used though it is there, if so."""
    if _CPU.exists():
        level = _open(_CPU).swin_dense_cpu_level
        level.restype = ctypes.c_char_p
        _loaded["cpu"] = level().decode()
    if not CUDA.exists() or torch.version.cuda is None:
        return None
    told, wanted = told_by(CUDA), torch.version.cuda
    try:
        if told["cuda"] != wanted.split(".")[0]:
            raise RuntimeError(f"it was built with CUDA {told['cuda']}, torch with CUDA {wanted}")
        _open(CUDA)
    except RuntimeError as error:
        warnings.warn(
            f"{CUDA} is not used, ops on CUDA are computed in plain torch: {error}. Build it "
            f"again ({_BUILD}), or remove it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return str(error)
    _loaded["cuda"] = f"CUDA {told['cuda']}"
    _architectures.update({False: told["architectures"], True: told["tensor cores"]})
    return None


def told_by(library: Path) -> dict[str, str]:
    """Read from the file of the CUDA library what it was built for; loading it registers its ops.

    Returns:
        "cuda", its major version; "architectures" that it has code for; "tensor cores", those of
        kernels that need them. See csrc/cuda/launch.cu.
    """
    found = _BUILT.search(library.read_bytes())
    parts = [part.decode() for part in found.groups()] if found else ["0", "", ""]
    return dict(zip(("cuda", "architectures", "tensor cores"), parts, strict=True))


def _open(path: Path) -> ctypes.CDLL:
    try:
        torch.ops.load_library(str(path))
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise RuntimeError(
            f"{path} does not load: {error.__cause__ or error}. Build it again ({_BUILD}), or "
            f"remove it or set {SWITCH}=off to do without."
        ) from error


MISSING: str | None = _why_missing()
if MISSING is None:
    _UNFIT = _load()
