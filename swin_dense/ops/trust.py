"""Decides which kernels a device may run, before the first launch on it.

A kernel is left out where the library holds no code for the card, and where the self-check finds
it wrong there (self_check.py). In both cases a warning says so once, with the figures, and the op
is computed by its meaning from then on: never an error where plain torch works. The verdict of
the self-check is kept in a file for each library, card and driver.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import extension, reference, self_check

Key = tuple[str, torch.device, torch.dtype]

_OPS: dict[str, dict[str, None]] = {}  # by family
for _case in self_check.CASES:
    _OPS.setdefault(_case.family, {})[_case.op] = None

_SWITCH = "SWIN_DENSE_SELF_CHECK"
_seen: set[Key] = set()  # those looked at, good or not
_left_out: dict[Key, str] = {}  # why
_overrides: dict[tuple[str, str], torch.library.Library] = {}  # by op and kind of device
_lock = threading.RLock()


def why_not(family: str, tensor: Tensor) -> str | None:
    """Return why the kernel of an op is not used for this device and dtype; None if it may be."""
    look(family, tensor)
    if not _left_out:  # all that a compiler has to follow
        return None
    return _left_out.get((family, tensor.device, tensor.dtype))


def look(family: str, tensor: Tensor) -> None:
    """Decide about an op on the device and in the dtype of `tensor`, unless that is done.

    Called by the front of each op, and by its fake while a compiler traces. Costs a look into a
    set from the second call on. While a CUDA graph is captured nothing can be tried: the kernel
    is used, and the next call outside decides.
    """
    if tensor.device.type != "cuda" or torch.compiler.is_compiling():
        return
    key = (family, tensor.device, tensor.dtype)
    if key in _seen or "cuda" not in extension.loaded() or not torch.cuda.is_available():
        return
    if torch.cuda.is_current_stream_capturing():
        return
    # Modes (autocast, inference, fake tensors, gradients) belong to a thread: a new one has none.
    other = threading.Thread(target=_decide, args=(key,))
    other.start()
    other.join()


def checked() -> list[str]:
    """Return the cards on which kernels were decided about in this process, by name."""
    devices = {device for _, device, _ in _seen}
    return sorted({_card(device) for device in devices if device.type == "cuda"})


def describe() -> str:
    """Return one line for a report: "kernels: cpu (avx512), cuda (CUDA 13), checked on ..."."""
    parts = [extension.describe()]
    parts += [f"checked on {name}" for name in checked()]
    parts += [f"left out: {reason}" for reason in dict.fromkeys(_left_out.values())]
    return ", ".join(parts)


def leave_out(family: str, device: torch.device, dtype: torch.dtype, reason: str) -> None:
    """Compute an op by its meaning on this device and in this dtype from now on, and say why."""
    with _lock:
        known = reason in _left_out.values()
        _left_out[family, device, dtype] = reason
        for op in _OPS[family]:
            _override(family, op, device.type)
    if not known:
        warnings.warn(reason, RuntimeWarning, stacklevel=2)


def no_code(family: str, device: torch.device) -> str | None:
    """Return why the library holds no code of an op for this card; None if it does."""
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    held = extension.architectures(tensor_cores=family == "window_attention")
    if held is None or extension.runs_on(held, capability):
        return None
    number = capability[0] * 10 + capability[1]
    return (
        f"{family}: {_card(device)} has compute capability {capability[0]}.{capability[1]}, and "
        f"the CUDA kernels here are built for {held}; the op is computed in plain torch. To have "
        f"kernels for it, if it is 7.5 or later (8.0 for window_attention), build them there: "
        f"SWIN_DENSE_CUDA_ARCHS={number} make setup."
    )


def _decide(key: Key) -> None:
    family, device, dtype = key
    with _lock:
        if key in _seen:
            return
        _seen.add(key)
        reason = no_code(family, device)
        if reason is None and os.environ.get(_SWITCH, "on") != "off":
            reason = _verdict(family, device, dtype)
    if reason is not None:
        leave_out(family, device, dtype, reason)


def _verdict(family: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return what is wrong with an op here, from the file or by trying; None if nothing is."""
    path, entry = _file(device), f"{family} {dtype}"
    known = _read(path)
    if entry not in known:
        known[entry] = failures(self_check.run(family, device, dtype))
        _write(path, known)
    if known[entry] is None:
        return None
    return (
        f"{family}: its CUDA kernel failed its self-check on {_card(device)}: {known[entry]}. It "
        "is switched off and plain torch is used, which is slower. Please report it with what "
        "swin-dense check finds."
    )


def failures(findings: list[self_check.Finding]) -> str | None:
    """Return the findings that are no good, in words; None if there are none."""
    return "; ".join(finding.describe() for finding in findings if not finding.ok) or None


def _override(family: str, op: str, device_type: str) -> None:
    """Put the meaning before the kernel, for the devices and dtypes that are left out."""
    if (op, device_type) in _overrides:
        return
    name, meaning = f"swin_dense::{op}", getattr(reference, op)
    where = device_type.upper()
    kernel = torch.library.get_kernel(name, where)
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, where))

    def choose(*arguments: Any) -> Any:
        tensor = next(x for x in arguments if isinstance(x, Tensor))
        if (family, tensor.device, tensor.dtype) in _left_out:
            return meaning(*arguments)
        return kernel.call_boxed(keys, *arguments)

    library = torch.library.Library("swin_dense", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it overrides is what it is for
        library.impl(op, choose, where, allow_override=True)
    _overrides[op, device_type] = library


def _card(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _file(device: torch.device) -> Path:
    """Return where verdicts about the library, this card and its driver are kept."""
    marks = [
        hashlib.sha256(extension.CUDA.read_bytes()).hexdigest(),
        _card(device),
        str(torch.cuda.get_device_capability(device)),
        str(torch._C._cuda_getDriverVersion()),  # type: ignore[attr-defined]
        torch.__version__,
    ]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "swin_dense" / f"{hashlib.sha256(repr(marks).encode()).hexdigest()[:20]}.json"


def _read(path: Path) -> dict[str, str | None]:
    try:
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(path: Path, content: dict[str, str | None]) -> None:
    """Replace the file whole; where nothing can be written the next process tries again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(content, file, indent=1)
        os.replace(file.name, path)
