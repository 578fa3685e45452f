"""Attention inside the windows of a token map, shifted or not, for maps of any size.

Letters: B images, H W tokens in a column and a row, N heads, D channels of a head, L tokens of a
window.

There are several ways to compute it, the back ends. Each says in words why it cannot take a call;
the first that can is used, and what it means is reference.window_attention.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import extension, reference, trust, window_gather
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_forward_mode, refuse_second
from swin_dense.ops.tracing import recording

_ARGUMENTS = (
    "Tensor qkv, Tensor bias, Tensor pad_qkv, Tensor scale, int window, int shift, bool cosine"
)
torch.library.define("swin_dense::window_attention", f"({_ARGUMENTS}) -> Tensor")
torch.library.define(
    "swin_dense::window_attention_backward",
    f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(
    "swin_dense::window_attention", "CompositeExplicitAutograd", reference.window_attention
)
torch.library.impl(
    "swin_dense::window_attention_backward",
    "CompositeExplicitAutograd",
    reference.window_attention_backward,
)


@torch.library.register_fake("swin_dense::window_attention")
def _fake(
    qkv: Tensor, bias: Tensor, pad_qkv: Tensor, scale: Tensor, window: int, shift: int, cosine: bool
) -> Tensor:
    trust.look("window_attention", qkv)
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[4] * qkv.shape[5])


@torch.library.register_fake("swin_dense::window_attention_backward")
def _fake_backward(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    scale: Tensor,
    window: int,
    shift: int,
    cosine: bool,
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (qkv, bias, pad_qkv, scale))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.window, ctx.shift, ctx.cosine = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    back = torch.ops.swin_dense.window_attention_backward(
        grad, *ctx.saved_tensors, ctx.window, ctx.shift, ctx.cosine
    )
    return *back, None, None, None


torch.library.register_autograd(
    "swin_dense::window_attention", _backward, setup_context=_setup_context
)
refuse_second("window_attention")


@dataclass(frozen=True)
class BackEnd:
    """One way to compute window attention.

    Attributes:
        name: what to ask for it by.
        why_not: (qkv, window) -> the reason why it cannot take this call, or None.
        run: (qkv, bias, pad_qkv, scale, window, shift, cosine) -> out.
    """

    name: str
    why_not: Callable[[Tensor, int], str | None]
    run: Callable[..., Tensor]


_KERNEL_DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


def _why_no_kernel(qkv: Tensor, window: int) -> str | None:
    device, head_dim = qkv.device.type, qkv.shape[5]
    if device not in extension.loaded():
        return extension.MISSING or f"no kernels for {device} are built"
    if qkv.dtype not in _KERNEL_DTYPES[device]:
        names = " and ".join(str(dtype) for dtype in _KERNEL_DTYPES[device])
        return f"the {device} kernel computes in {names}, not in {qkv.dtype}"
    if head_dim > 64:
        return f"the kernels hold heads of at most 64 channels, these have {head_dim}"
    if window > 32:
        return f"the kernels hold windows of at most 32x32 tokens, not {window}x{window}"
    found = trust.instead("window_attention", qkv)
    return None if found is None else found.reason


def _why_no_triton(qkv: Tensor, window: int) -> str | None:
    found = trust.instead("window_attention", qkv)
    if found is None or found.name != "triton":
        return "Triton's kernels stand in for the compiled ones on cuda, where those do not fit"
    return found.why_not(qkv, *[None] * 3, window, 0, False)


def _why_no_flex(qkv: Tensor, window: int) -> str | None:
    head_dim = qkv.shape[5]
    if qkv.device.type != "cuda":
        return f"FlexAttention is fast and has gradients on cuda only, this is on {qkv.device}"
    if qkv.dtype == torch.float64:
        return "FlexAttention does not compute in torch.float64"
    if head_dim < 16 or head_dim & (head_dim - 1):
        return f"FlexAttention needs heads of 16, 32 or 64 channels, these have {head_dim}"
    # What the score function captures gets its gradient by atomic adds (pytorch#137452).
    determined = torch.are_deterministic_algorithms_enabled()
    if determined and not torch.is_deterministic_algorithms_warn_only_enabled():
        return (
            "FlexAttention adds up the gradient of the bias in no fixed order, and "
            "torch.use_deterministic_algorithms is on"
        )
    return None


def _why_no_sdpa(qkv: Tensor, window: int) -> str | None:
    return None


# In the order of preference. SDPA takes every call, so what stands behind it is used by name only:
# FlexAttention, because it compiles on first use, and the meaning. The first two are one op: trust
# decides for each device what computes it.
BACK_ENDS = (
    BackEnd("kernel", _why_no_kernel, torch.ops.swin_dense.window_attention),
    BackEnd("triton", _why_no_triton, torch.ops.swin_dense.window_attention),
    BackEnd("sdpa", _why_no_sdpa, window_gather.by_sdpa),
    BackEnd("flex", _why_no_flex, window_gather.by_flex),
    BackEnd("plain", lambda qkv, window: None, reference.window_attention),
)


def choose(qkv: Tensor, window: int, name: str | None = None) -> BackEnd:
    """Return the back end of that name, or the first of BACK_ENDS that can take the call.

    Where tools/benchmark.py has measured on this card that another is faster, that one.
    """
    by_name = {b.name: b for b in BACK_ENDS}
    if recording():
        return by_name["plain"]
    if name is None:
        first = next(b for b in BACK_ENDS if b.why_not(qkv, window) is None)
        return by_name.get(trust.faster(qkv, window) or "", first)
    if name not in by_name:
        raise ValueError(
            f"window_attention: a back end is one of {', '.join(by_name)}; got {name!r}. "
            "Leave it out to have one chosen."
        )
    reason = by_name[name].why_not(qkv, window)
    if reason is not None:
        raise ValueError(
            f"window_attention: the back end {name!r} cannot take this call: {reason}. "
            "Leave it out to have one chosen that can."
        )
    return by_name[name]


def window_attention(
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    window: int,
    shift: int,
    scale: float | Tensor | None = None,
    cosine: bool = False,
    back_end: str | None = None,
) -> Tensor:
    """Let the tokens of each window look at one another.

    (B, H, W, 3, N, D) -> (B, H, W, N * D), dtype of `qkv`. Logits, softmax and sums are kept in
    float32 at least. Autocast changes nothing here: the projection has already chosen the dtype of
    `qkv`, and the bias of the logits is not rounded to it.

    Swin V1 is softmax(scale q k + bias) v (arXiv 2103.14030, eq. 4); V2 is the same of q and k
    of length 1 (arXiv 2111.09883, eq. 2). Gradients reach all four tensors.

    Args:
        qkv: the map as the projection leaves it: not extended, not turned, not cut, not scaled.
        bias: (N, L, L), added to the logits of every window.
        pad_qkv: (3, N, D), what positions outside the map carry. They are looked at like any
            other token; pass the bias of the projection, since it is given zeros there.
        window: side of a window, in tokens.
        shift: how far the windows are moved to the bottom right, in tokens. Those that then
            reach around the border see only tokens from their own side of it.
        scale: factor on the products of q and k, one for all heads or (N,); None for D ** -0.5.
        cosine: divide each q and k by its length first; `scale` has to be given then.
        back_end: the name of one of BACK_ENDS; None for the first that can take the call.
    """
    _check(qkv, bias, pad_qkv, window, shift, scale, cosine)
    chosen = choose(qkv, window, back_end)
    if chosen.name in ("kernel", "triton"):
        refuse_forward_mode("window_attention", qkv, bias, pad_qkv)
    dtype = reference.sum_dtype(qkv.dtype)
    if not isinstance(scale, Tensor):
        value = qkv.shape[5] ** -0.5 if scale is None else scale
        scale = torch.full((qkv.shape[4],), value, dtype=dtype, device=qkv.device)
    rest = (bias.to(dtype), pad_qkv.to(qkv.dtype), scale.to(dtype))
    return chosen.run(qkv, *rest, window, shift, cosine)


def _check(
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    window: int,
    shift: int,
    scale: float | Tensor | None,
    cosine: bool,
) -> None:
    if qkv.dim() != 6 or qkv.shape[3] != 3 or 0 in qkv.shape[1:]:
        raise ValueError(
            "window_attention: qkv is a map (B, H, W, 3, heads, head_dim) with nothing empty but "
            f"B; it has shape {tuple(qkv.shape)}. Unflatten the output of the projection, last "
            "axis to (3, heads, head_dim)."
        )
    if window < 1 or not 0 <= shift < window:
        raise ValueError(
            f"window_attention: a window of at least 1 token is shifted by 0 to window - 1; got "
            f"window {window}, shift {shift}. Shift by window // 2 or by 0."
        )
    heads, head_dim = qkv.shape[4:]
    length = window * window
    if bias.shape != (heads, length, length):
        raise ValueError(
            f"window_attention: bias has shape {tuple(bias.shape)}, windows of {window}x{window} "
            f"with {heads} heads need {(heads, length, length)}. Resize the bias table to this "
            "window first."
        )
    if pad_qkv.shape != (3, heads, head_dim):
        raise ValueError(
            f"window_attention: pad_qkv has shape {tuple(pad_qkv.shape)}, a qkv of shape "
            f"{tuple(qkv.shape)} needs {(3, heads, head_dim)}. Pass the bias of the projection, "
            "or zeros if it has none."
        )
    factor = scale if isinstance(scale, Tensor) else None
    if isinstance(scale, Tensor):
        if scale.shape != (heads,):
            raise ValueError(
                f"window_attention: scale is one number or one for each head, shape {(heads,)}; "
                f"it has shape {tuple(scale.shape)}. Flatten it."
            )
    elif scale is None and cosine:
        raise ValueError(
            "window_attention: cosine attention has no usual scale, and scale is None. Pass one "
            f"for each head, shape {(heads,)}, or a number; Swin V2 learns it and starts at 10."
        )
    elif scale is not None and not math.isfinite(scale):
        raise ValueError(f"window_attention: scale is finite; got {scale}. Pass head_dim ** -0.5.")
    require_floats("window_attention", qkv=qkv, bias=bias, pad_qkv=pad_qkv, scale=factor)
    require_one_device("window_attention", qkv=qkv, bias=bias, pad_qkv=pad_qkv, scale=factor)
