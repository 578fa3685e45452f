"""Rows about neighborhood attention, beside the two ways it is computed elsewhere.

A gather of all that each position sees; and FlexAttention under a block mask, the way of NATTEN
from 0.20 on where it has no CUDA (its natten.backends.flex). That has no position bias, so ours
goes without too; NATTEN calls it as it is, compiled only where a user allows that, and makes the
mask, which is made beforehand here, at each call. It has no backward pass on a CPU.
Shapes are those of the third level of NAT-T for one image of the given size.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from swin_dense import ops
from swin_dense.benchmarks import ratios
from swin_dense.benchmarks.ratios import Case, LeftOutError, Pair
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
    for compiled, against in ((False, "FlexAttention"), (True, "compiled FlexAttention")):
        for dilation, kind in ((1, ""), (widest, ", dilated")):
            for both_ways, name in ((False, "forward"), (True, "forward and backward")):
                if both_ways and device == "cpu":
                    continue
                prepare = functools.partial(
                    _flex_calls,
                    device,
                    max(height, WINDOW),
                    max(width, WINDOW),
                    dilation,
                    both_ways,
                    compiled,
                )
                label = f"neighborhood_attention, {name}{kind}, no bias"
                rows.append(Case(label, against, functools.partial(_measure, prepare)))
    return rows


def _measure(prepare: Callable[[], Calls], seconds: float) -> Pair:
    torch.manual_seed(0)
    return ratios.pair(*prepare(), seconds)


def _flex_calls(
    device: str, height: int, width: int, dilation: int, both_ways: bool, compiled: bool
) -> Calls:
    maps = [
        torch.randn(1, height, width, HEADS, HEAD_DIM, device=device, requires_grad=both_ways)
        for _ in range(3)
    ]
    mask = _seen_blocks(height, width, dilation, device)
    flex: Any = torch.compile(flex_attention, dynamic=False) if compiled else flex_attention

    def by_flex(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads_first = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))
        out = flex(*heads_first, block_mask=mask)
        return out.transpose(1, 2).unflatten(1, (height, width))

    def by_op(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return ops.neighborhood_attention(query, key, value, None, WINDOW, dilation)

    def call(attend: Callable[..., Tensor]) -> None:
        if not both_ways:
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that it is not compiled
                attend(*maps)
            return
        out = attend(*maps)
        torch.autograd.grad(out, maps, torch.ones_like(out))

    if compiled:
        try:
            call(by_flex)
        except RuntimeError as error:  # what dynamo and inductor raise are such
            reason = str(error).strip().splitlines()[0]
            raise LeftOutError(
                f"FlexAttention: torch.compile fails ({reason}), left out"
            ) from error
    return functools.partial(call, by_op), functools.partial(call, by_flex)


def _seen_blocks(height: int, width: int, dilation: int, device: str) -> Any:
    """Return FlexAttention's mask of what each position of a map sees, in blocks of 64."""

    def within(query: Tensor, key: Tensor, side: int) -> Tensor:
        """Say of places of a column or a row whether a key is in the window of a query."""
        rest = query % dilation
        count = (side - rest + dilation - 1) // dilation  # places with this rest
        last = count - WINDOW
        first = torch.minimum((query // dilation - WINDOW // 2).clamp(min=0), last)
        place = key // dilation
        return (key % dilation == rest) & (place >= first) & (place < first + WINDOW)

    def seen(image: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down = within(query // width, key // width, height)
        return down & within(query % width, key % width, width)

    tokens = height * width
    return create_block_mask(seen, None, None, tokens, tokens, device, BLOCK_SIZE=64)


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
