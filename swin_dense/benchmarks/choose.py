"""Measure which back end of window attention is faster on a card, and keep that for its runs."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from swin_dense.benchmarks import ratios
from swin_dense.ops import trust, verdicts
from swin_dense.ops.window_attention import BACK_ENDS, window_attention

WINDOWS = (7, 8, 12, 16, 24)
HEAD_DIMS = (32, 64)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HEADS, ACROSS = 6, 9  # windows in a row and a column, the last of them ragged
_CLEAR = 1.03  # times as fast, or the kernel stays: it needs less memory


@dataclass(frozen=True)
class Choice:
    """One size of window attention, and who was faster.

    Attributes:
        size: the words that trust.size_of names it by.
        ratio: how many times as fast as SDPA the kernel is, the median of turns.
    """

    size: tuple[str, ...]
    ratio: float

    @property
    def faster(self) -> str:
        """Return the back end to take."""
        return "sdpa" if self.ratio * _CLEAR < 1 else "kernel"


def measure(device: torch.device, seconds: float) -> Iterator[Choice]:
    """Yield a choice for each size and direction that the kernel can take here.

    Args:
        seconds: for each of them.
    """
    kernel = next(b for b in BACK_ENDS if b.name == "kernel")
    for dtype, window, dim in itertools.product(DTYPES, WINDOWS, HEAD_DIMS):
        side = window * ACROSS - 2
        qkv = torch.randn(1, side, side, 3, HEADS, dim, device=device).to(dtype)
        if kernel.why_not(qkv, window) is not None:
            continue
        bias = torch.randn(HEADS, window**2, window**2, device=device)
        inputs = [qkv, bias, torch.randn(3, HEADS, dim, device=device).to(dtype)]
        for training in (False, True):
            ours, theirs = (
                functools.partial(_call, inputs, window, training, name)
                for name in ("kernel", "sdpa")
            )
            ratio = ratios.pair(ours, theirs, seconds).ratio
            yield Choice(trust.size_of(dtype, window, dim, training), ratio)


def keep(device: torch.device, choices: list[Choice]) -> None:
    """Write the choices beside the verdicts about this device."""
    entries = {", ".join(one.size): one.faster for one in choices}
    verdicts.add(verdicts.path(device), {"faster": entries})


def _call(inputs: list[torch.Tensor], window: int, training: bool, name: str) -> None:
    qkv, bias, pad = tensors = [x.detach().requires_grad_(training) for x in inputs]
    with torch.set_grad_enabled(training):
        out = window_attention(qkv, bias, pad, window, window // 2, back_end=name)
        if training:
            torch.autograd.grad(out, tensors, torch.ones_like(out), allow_unused=True)
