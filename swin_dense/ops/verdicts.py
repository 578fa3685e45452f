"""The file that keeps what was found out about kernels, for each library, card and driver.

It lies in ~/.cache/swin_dense (XDG_CACHE_HOME). Entries are named by who writes them; a file that
is torn or of another kind counts as empty, and where nothing can be written nothing is kept.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

from swin_dense.ops import extension


def card(device: torch.device) -> str:
    """Return the name of a CUDA device."""
    return torch.cuda.get_device_name(device)


def driver() -> str:
    """Return which CUDA the driver of the cards here is for, as it tells it; "unknown" if not.

    Asked of the driver itself: torch has no public name for it.
    """
    version = ctypes.c_int()
    for name in ("libcuda.so.1", "nvcuda.dll"):
        with contextlib.suppress(OSError):
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version)) == 0:
                return str(version.value)
    return "unknown"


def path(device: torch.device) -> Path:
    """Return where verdicts about the library, this card, its driver and this torch are kept."""
    library = extension.CUDA.read_bytes() if extension.CUDA.exists() else b""
    capability = str(torch.cuda.get_device_capability(device))
    digest = hashlib.sha256(library).hexdigest()
    return path_of(digest, card(device), capability, driver(), torch.__version__)


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor()


def path_of(*marks: str) -> Path:
    """Return where that is kept which holds for these marks together."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "swin_dense" / f"{hashlib.sha256(repr(marks).encode()).hexdigest()[:20]}.json"


def read(file: Path) -> dict[str, Any]:
    """Return all entries."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def add(file: Path, entries: dict[str, Any]) -> None:
    """Add to the entries, or replace them; the file is never seen half written."""
    content = read(file) | entries
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as written:
            json.dump(content, written, indent=1)
        os.replace(written.name, file)
