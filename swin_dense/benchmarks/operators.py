"""Rows about our ops, each beside the usual way to compute the same.

Shapes are those of Mask R-CNN with Swin-T for one image of the given size; for the deformable ops
see deform.py, for neighborhood attention neighborhoods.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_dense import ops
from swin_dense.benchmarks import deform, neighborhoods, ratios
from swin_dense.benchmarks.ratios import Case, Pair
from swin_dense.ops import reference
from swin_dense.ops.window_attention import window_attention

Calls = tuple[Callable[[], Any], Callable[[], Any]]  # ours, theirs
PLAIN = "plain torch"
USUAL = {"plain": "usual path (plain)", "sdpa": "SDPA with a mask"}  # back end -> what it is
WINDOW, HEAD_DIM = 7, 32
FIRST, THIRD = (3, 4), (12, 16)  # (heads, stride) of two stages of Swin-T


def cases(device: str, shape: tuple[int, int]) -> list[Case]:
    """`shape`: long and short side of the image."""
    make = [
        ("roi_align, 512 rois, 256 channels", PLAIN, _roi_align(device, shape, False)),
        ("roi_align, forward and backward", PLAIN, _roi_align(device, shape, True)),
        *((f"nms, {n} boxes", PLAIN, _nms(device, shape, n)) for n in (2000, 10000)),
    ]
    dtypes = {torch.float32: "", torch.bfloat16: ", bf16"}
    for dtype, suffix in dtypes.items():
        for back_end in ("plain", "sdpa"):
            add = _attention(device, shape, FIRST, WINDOW // 2, dtype, False, back_end)
            make.append((f"window_attention, forward{suffix}", USUAL[back_end], add))
        add = _attention(device, shape, FIRST, WINDOW // 2, dtype, True, "plain")
        make.append((f"window_attention, forward and backward{suffix}", USUAL["plain"], add))
    for name, stage, shift in (("no shift", FIRST, 0), ("stage 3", THIRD, WINDOW // 2)):
        add = _attention(device, shape, stage, shift, torch.float32, False, "plain")
        make.append((f"window_attention, forward, {name}", USUAL["plain"], add))
    rows = [Case(name, against, _measured(prepare)) for name, against, prepare in make]
    return [*rows, *neighborhoods.cases(device, shape), *deform.cases(device, shape)]


def _measured(prepare: Callable[[], Calls]) -> Callable[[float], Pair]:
    """Tensors are made when the row's turn comes, the same ones in every run."""

    def measure(seconds: float) -> Pair:
        torch.manual_seed(0)
        return ratios.pair(*prepare(), seconds)

    return measure


def _roi_align(device: str, shape: tuple[int, int], both_ways: bool) -> Callable[[], Calls]:
    """512 regions, an eighth of the image wide, on a stride-4 map."""
    long, short = shape
    fixed: dict[str, Any] = dict(spatial_scale=0.25, sampling_ratio=0, take_max=False, aligned=True)

    def prepare() -> Calls:
        size = (1, 256, -(-short // 4), -(-long // 4))
        features = torch.randn(size, device=device, requires_grad=both_ways)
        corner = torch.rand(512, 2, device=device) * torch.tensor([long, short], device=device)
        corner = corner * 0.75
        rois = torch.cat([corner.new_zeros(512, 1), corner, corner + long / 8], 1)

        def ours() -> None:
            out = ops.roi_align(features, rois, (7, 7), 0.25)
            if both_ways:
                torch.autograd.grad(out.sum(), features)

        def theirs() -> None:
            out, y, x = reference.roi_align(features.detach(), rois, 7, 7, **fixed)
            if both_ways:
                reference.roi_align_backward(torch.ones_like(out), rois, y, x, *size, **fixed)

        return ours, theirs

    return prepare


def _nms(device: str, shape: tuple[int, int], count: int) -> Callable[[], Calls]:
    def prepare() -> Calls:
        start = torch.rand(count, 2, device=device) * 1000
        boxes = torch.cat([start, start + torch.rand(count, 2, device=device) * 200], 1)
        scores = torch.rand(count, device=device)
        return (
            functools.partial(ops.nms, boxes, scores, 0.5),
            functools.partial(reference.nms, boxes, scores, 0.5, 0),
        )

    return prepare


def _attention(
    device: str,
    shape: tuple[int, int],
    stage: tuple[int, int],
    shift: int,
    dtype: torch.dtype,
    both_ways: bool,
    back_end: str,
) -> Callable[[], Calls]:
    """Our own choice of back end against the one named."""
    (long, short), (heads, stride) = shape, stage
    height, width, length = -(-short // stride), -(-long // stride), WINDOW * WINDOW

    def prepare() -> Calls:
        qkv = torch.randn(1, height, width, 3, heads, HEAD_DIM, device=device, dtype=dtype)
        bias = torch.randn(heads, length, length, device=device)
        pad_qkv = torch.randn(3, heads, HEAD_DIM, device=device)
        inputs: list[Tensor] = [qkv, bias, pad_qkv]

        def call(name: str | None) -> None:
            if not both_ways:
                with torch.inference_mode():
                    window_attention(qkv, bias, pad_qkv, WINDOW, shift, back_end=name)
                return
            out = window_attention(qkv, bias, pad_qkv, WINDOW, shift, back_end=name)
            torch.autograd.grad(out, inputs, torch.ones_like(out))

        for tensor in inputs:
            tensor.requires_grad_(both_ways)
        return functools.partial(call, None), functools.partial(call, back_end)

    return prepare
