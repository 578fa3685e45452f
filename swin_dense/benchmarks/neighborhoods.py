"""Rows about neighborhood attention, beside a gather of all that each position sees.

Shapes are those of the third level of NAT-T for one image of the given size.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_dense import ops
from swin_dense.benchmarks import ratios
from swin_dense.benchmarks.ratios import Case, Pair
from swin_dense.ops.reference.neighborhood_attention import Axis

Calls = tuple[Callable[[], Any], Callable[[], Any]]  # ours, theirs
WINDOW, HEADS, HEAD_DIM, STRIDE = 7, 8, 32, 16


def cases(device: str, shape: tuple[int, int]) -> list[Case]:
    """`shape`: long and short side of the image."""
    width, height = (-(-side // STRIDE) for side in shape)
    widest = max(min(width, height) // WINDOW, 1)
    rows = []
    for dilation, kind in ((1, ""), (widest, ", dilated")):
        for both_ways, name in ((False, "forward"), (True, "forward and backward")):
            prepare = functools.partial(
                _calls, device, max(height, WINDOW), max(width, WINDOW), dilation, both_ways
            )
            label = f"neighborhood_attention, {name}{kind}"
            rows.append(Case(label, "gather of all keys", functools.partial(_measure, prepare)))
    return rows


def _measure(prepare: Callable[[], Calls], seconds: float) -> Pair:
    torch.manual_seed(0)
    return ratios.pair(*prepare(), seconds)


def _calls(device: str, height: int, width: int, dilation: int, both_ways: bool) -> Calls:
    inputs = [
        torch.randn(1, height, width, HEADS, HEAD_DIM, device=device, requires_grad=both_ways)
        for _ in range(3)
    ]
    side = 2 * WINDOW - 1
    inputs.append(torch.randn(HEADS, side, side, device=device, requires_grad=both_ways))

    def call(attend: Callable[..., Tensor]) -> None:
        if not both_ways:
            with torch.inference_mode():
                attend(*inputs, WINDOW, dilation)
            return
        out = attend(*inputs, WINDOW, dilation)
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    ours, theirs = ops.neighborhood_attention, by_gather
    return functools.partial(call, ours), functools.partial(call, theirs)


def by_gather(
    query: Tensor, key: Tensor, value: Tensor, table: Tensor, window: int, dilation: int
) -> Tensor:
    """Compute neighborhood attention from copies of all that is seen: (B, H, W, N, D), the same."""
    rows, columns = (Axis(side, window, dilation, query.device) for side in query.shape[1:3])
    # B, H, window, W, window, N, D
    k, v = (x[:, rows.seen][:, :, :, columns.seen] for x in (key, value))
    logits = torch.einsum("bhwnd,bhrwsnd->bhwnrs", query * query.shape[-1] ** -0.5, k)
    bias = table[:, rows.offset][:, :, :, columns.offset]  # N, H, window, W, window
    weights = (logits + bias.permute(1, 3, 0, 2, 4)).flatten(-2).softmax(-1)
    return torch.einsum("bhwnrs,bhrwsnd->bhwnd", weights.view_as(logits), v)
