"""Decides what computes an op on a device, before the first launch on it.

A kernel is left out where the library holds no code for the card, and where the self-check finds
it wrong there (self_check.py). A warning says so once, with the figures. In its place comes the
Triton kernel, if there is one and it passes the same check, else the meaning of the op in plain
torch: never an error where plain torch works. verdicts.py keeps what was found.
"""

import importlib
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import extension, reference, self_check, verdicts

Key = tuple[str, torch.device, torch.dtype]


@dataclass(frozen=True)
class Substitute:
    """What computes an op in place of its kernel.

    Attributes:
        name: "triton" or "plain".
        reason: why the kernel is not used.
        ops: has a function for each op of the family, of the same arguments.
        why_not: its arguments -> why it cannot take a call, or None; then the meaning does.
    """

    name: str
    reason: str
    ops: Any
    why_not: Callable[..., str | None] = lambda *_: None


_OPS: dict[str, dict[str, None]] = {}  # by family
for _case in self_check.CASES:
    _OPS.setdefault(_case.family, {})[_case.op] = None

# Those with a Triton kernel, and which arguments, counted from the last, it wants to see first.
_TRITON = {"window_attention": (-7, -3), "ms_deform_attn": (-4,)}

_CHECKS = extension.switched_on("SWIN_DENSE_SELF_CHECK")
_seen: set[Key] = set()  # those decided about
_instead: dict[Key, Substitute] = {}
_faster: dict[tuple, str] = {}  # what `measured` was told
_overrides: dict[tuple[str, str], torch.library.Library] = {}  # by op and kind of device
_lock = threading.RLock()


def instead(family: str, tensor: Tensor, dtype: torch.dtype | None = None) -> Substitute | None:
    """Return what computes an op in place of its kernel, for this device and dtype, if anything."""
    look(family, tensor, dtype)
    if not _instead:  # all that a compiler has to follow
        return None
    return _instead.get((family, tensor.device, dtype or tensor.dtype))


def look(family: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Decide about an op on the device of `tensor`, in its dtype or another, unless that is done.

    Called by the front of each op, and by its fake while a compiler traces. Costs a look into a
    set from the second call on. While a CUDA graph is captured nothing can be tried: the kernel
    is used, and the next call outside decides.
    """
    if tensor.device.type != "cuda" or torch.compiler.is_compiling():
        return
    key = (family, tensor.device, dtype or tensor.dtype)
    if key in _seen or not torch.cuda.is_available() or torch.cuda.is_current_stream_capturing():
        return
    # Modes (autocast, inference, fake tensors, gradients) belong to a thread: a new one has none.
    with ThreadPoolExecutor(1) as other:
        other.submit(decide, *key).result()  # which raises what the other raised


def faster(qkv: Tensor, window: int) -> str | None:
    """Return the back end of window attention that was measured to be faster here, if any was."""
    if not _faster:
        return None
    training = torch.is_grad_enabled() and qkv.requires_grad
    return _faster.get((qkv.device, *size_of(qkv.dtype, window, qkv.shape[5], training)))


def size_of(dtype: torch.dtype, window: int, head_dim: int, training: bool) -> tuple[str, ...]:
    """Return the words by which a measurement of window attention is kept."""
    heads = "heads up to 32" if head_dim <= 32 else "heads up to 64"
    return str(dtype), f"window {window}", heads, "both ways" if training else "forward"


def describe() -> str:
    """Return one line for a report: "kernels: cpu (avx512), cuda (CUDA 13), checked on ..."."""
    parts = [extension.describe()]
    cards = {verdicts.card(device) for _, device, _ in _seen if device.type == "cuda"}
    parts += [f"checked on {name}" for name in sorted(cards)]
    parts += dict.fromkeys(f"left out: {one.reason}" for one in _instead.values())
    return ", ".join(parts)


def no_code(family: str, device: torch.device) -> str | None:
    """Return why the library holds no code of an op for this card; None if it does."""
    if device.type not in extension.loaded():
        return "no CUDA kernels are built here, or none that fit this torch."
    if device.type != "cuda":
        return None
    capability = torch.cuda.get_device_capability(device)
    held = extension.architectures(tensor_cores=family == "window_attention")
    if held is None or extension.runs_on(held, capability):
        return None
    number = capability[0] * 10 + capability[1]
    return (
        f"{family}: {verdicts.card(device)} has compute capability {capability[0]}."
        f"{capability[1]}, and the CUDA kernels here are built for {held}. If it is 7.5 or later "
        f"(8.0 for window_attention), build them for it: SWIN_DENSE_CUDA_ARCHS={number} make setup."
    )


def decide(family: str, device: torch.device, dtype: torch.dtype) -> None:
    """Find out what computes an op on a device in a dtype, and put that in its place."""
    with _lock:
        if (family, device, dtype) in _seen:
            return
        _seen.add((family, device, dtype))  # before: what is tried here must not ask again
        try:
            _decide(family, device, dtype)
        except BaseException:
            _seen.discard((family, device, dtype))
            raise


def _decide(family: str, device: torch.device, dtype: torch.dtype) -> None:
    known = verdicts.read(verdicts.path(device))
    _faster.update(
        {(device, *key.split(", ")): name for key, name in known.get("faster", {}).items()}
    )
    reason = no_code(family, device)
    wrong = None if reason else _verdict("kernel", family, device, dtype)
    if wrong is not None:
        reason = (
            f"{family}: its CUDA kernel failed its self-check on {verdicts.card(device)}: "
            f"{wrong}. It is switched off. Please report it with what swin-dense check finds."
        )
    if reason is not None:
        place(_substitute(family, device, dtype, reason), family, device, dtype)


def place(substitute: Substitute, family: str, device: torch.device, dtype: torch.dtype) -> None:
    """Compute an op by a substitute on this device and in this dtype from now on, and say why."""
    told = substitute.reason in {one.reason for one in _instead.values()}
    _instead[family, device, dtype] = substitute
    for op in _OPS[family]:
        _override(family, op, device.type)
    if not told and extension.MISSING is None:  # that nothing is built or wanted is no news
        by = "Triton" if substitute.name == "triton" else "plain torch"
        warnings.warn(
            f"{substitute.reason} Meanwhile {by} computes it.", RuntimeWarning, stacklevel=2
        )


def failures(findings: list[self_check.Finding]) -> str | None:
    """Return the findings that are no good, in words; None if there are none."""
    return "; ".join(finding.describe() for finding in findings if not finding.ok) or None


def _substitute(family: str, device: torch.device, dtype: torch.dtype, reason: str) -> Substitute:
    """Return Triton's kernels where there are some and they are right, else the meaning."""
    plain = Substitute("plain", reason, reference)
    if family not in _TRITON or not extension.switched_on(extension.SWITCH):
        return plain
    module = importlib.import_module(f"swin_dense.ops.triton.{family}")
    ops = SimpleNamespace(**{family: module.forward, f"{family}_backward": module.backward})

    def why_not(*arguments: Any) -> str | None:
        return module.why_not(*(arguments[i] for i in _TRITON[family]))

    found = Substitute("triton", reason, ops, why_not)
    return plain if _verdict("triton", family, device, dtype, found) else found


def _verdict(
    name: str,
    family: str,
    device: torch.device,
    dtype: torch.dtype,
    found: Substitute | None = None,
) -> str | None:
    """Return what is wrong with an op here, from the file or by trying; None if nothing is."""
    if not _CHECKS:
        return None
    file, entry = verdicts.path(device), f"{name} {family} {dtype}"
    known = verdicts.read(file)
    if entry not in known:
        which = (found.ops, found.why_not) if found else ()
        try:
            findings = self_check.run(family, device, dtype, *which)
        except RuntimeError as error:  # a launch that fails; memory that is full may be free later
            return f"it ended in an error, {str(error).strip().splitlines()[0]}"
        known[entry] = failures(findings) if findings else "it takes none of the cases"
        verdicts.add(file, {entry: known[entry]})
    return known[entry]


def _override(family: str, op: str, device_type: str) -> None:
    """Put what was decided before the kernel, for each device and dtype."""
    if (op, device_type) in _overrides:
        return
    name, meaning, where = f"swin_dense::{op}", getattr(reference, op), device_type.upper()
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, where))
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(name, where)
    kernel = torch.library.get_kernel(name, where) if has_kernel else None

    def choose(*arguments: Any) -> Any:
        tensor = next(x for x in arguments if isinstance(x, Tensor))
        found = _instead.get((family, tensor.device, tensor.dtype))
        if found is not None and found.why_not(*arguments) is None:
            return getattr(found.ops, op)(*arguments)
        if found is not None or kernel is None:
            return meaning(*arguments)
        return kernel.call_boxed(keys, *arguments)

    library = torch.library.Library("swin_dense", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it overrides is what it is for
        library.impl(op, choose, where, allow_override=True)
    _overrides[op, device_type] = library
