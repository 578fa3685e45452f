"""Deformable convolution (arXiv 1703.06211) and its modulated version 2 (arXiv 1811.11168).

Letters: B images, C channels, K positions of the kernel, G deformable groups, P positions of the
output, all images together.

The samples of some positions are laid out as columns, which one matrix product takes; so many at a
time that the columns stay small. The backward makes them again instead of keeping them.
"""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import reference, trust
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_atomics, refuse_forward_mode, refuse_second

_GEOMETRY = "int[] stride, int[] padding, int[] dilation"
_TENSORS = "Tensor input, Tensor offset, Tensor? mask"
_SCHEMAS = {
    "deform_conv2d": f"({_TENSORS}, Tensor weight, Tensor? bias, {_GEOMETRY}) -> Tensor",
    "deform_conv2d_backward": (
        f"(Tensor grad, {_TENSORS}, Tensor weight, {_GEOMETRY}, bool of_samples, bool of_weight) "
        "-> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "deform_columns": f"({_TENSORS}, int kernel_width, {_GEOMETRY}, int first, Tensor(a!) out)"
    " -> ()",
    "deform_columns_backward": (
        f"(Tensor grad, {_TENSORS}, int kernel_width, {_GEOMETRY}, int first, "
        "Tensor(a!) grad_input, Tensor(b!) grad_offset, Tensor(c!)? grad_mask) -> ()"
    ),
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"swin_dense::{_name}", _schema)
for _name in ("deform_columns", "deform_columns_backward"):
    torch.library.impl(
        f"swin_dense::{_name}", "CompositeExplicitAutograd", getattr(reference, _name)
    )

_deform_columns = torch.ops.swin_dense.deform_columns
_deform_columns_backward = torch.ops.swin_dense.deform_columns_backward
_PIECE = {"cpu": 1 << 21}  # numbers in the columns of one product
_LARGE_PIECE = 1 << 25  # on other devices


@torch.library.impl("swin_dense::deform_conv2d", "CompositeExplicitAutograd")
def _forward(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    with torch.autocast(input.device.type, enabled=False):
        images = input.permute(0, 2, 3, 1).contiguous()
        table = _table(weight, input.shape[1])
        out = _empty_out(input, offset, weight)
        rows = out.view(-1, table.shape[0], table.shape[2])  # (P, groups, Co / groups)
        geometry = (weight.shape[3], stride, padding, dilation)
        for run in _runs(offset, input.shape[1], input.device.type):
            columns = images.new_empty(len(run), offset.shape[2], input.shape[1])
            _deform_columns(images, offset, mask, *geometry, run[0], columns)
            product = _by_group(columns, len(table)) @ table
            rows[run[0] : run[-1] + 1] = product.transpose(0, 1)
        if bias is not None:
            out += bias
        return out.permute(0, 3, 1, 2)


@torch.library.impl("swin_dense::deform_conv2d_backward", "CompositeExplicitAutograd")
def _backward_of_all(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    of_samples: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, offset, mask (empty if None), weight; 0 if not asked for."""
    with torch.autocast(input.device.type, enabled=False):
        dtype, channels = reference.sum_dtype(input.dtype), input.shape[1]
        images = input.permute(0, 2, 3, 1).contiguous()
        table = _table(weight, channels)
        rows = grad.permute(0, 2, 3, 1).reshape(-1, len(table), table.shape[2]).transpose(0, 1)
        by_input = torch.zeros_like(images, dtype=dtype)
        by_offset = torch.zeros_like(offset)
        by_mask = None if mask is None else torch.zeros_like(mask)
        by_table = torch.zeros_like(table, dtype=dtype)
        geometry = (weight.shape[3], stride, padding, dilation)
        for run in _runs(offset, channels, input.device.type):
            part = rows[:, run[0] : run[-1] + 1]
            shape = (len(run), offset.shape[2], channels)
            if of_weight:
                columns = images.new_empty(shape)
                _deform_columns(images, offset, mask, *geometry, run[0], columns)
                by_table += _by_group(columns, len(table)).mT @ part
            if of_samples:
                columns = (part @ table.mT).unflatten(2, (offset.shape[2], -1))  # groups first
                columns = columns.permute(1, 2, 0, 3).reshape(shape).contiguous()
                _deform_columns_backward(
                    columns, images, offset, mask, *geometry, run[0], by_input, by_offset, by_mask
                )
        by_weight = by_table.unflatten(1, (offset.shape[2], -1)).permute(0, 3, 2, 1)
        return (
            by_input.permute(0, 3, 1, 2).to(input.dtype),
            by_offset,
            offset.new_empty(0) if by_mask is None else by_mask,
            by_weight.reshape(weight.shape).to(weight.dtype).contiguous(),
        )


def _table(weight: Tensor, channels: int) -> Tensor:
    """(Co, C / groups, kh, kw) -> (groups, K * C / groups, Co / groups)."""
    groups = channels // weight.shape[1]
    table = weight.flatten(2).unflatten(0, (groups, -1))
    return table.permute(0, 3, 2, 1).flatten(1, 2)


def _by_group(columns: Tensor, groups: int) -> Tensor:
    """(P, K, C) -> (groups, P, K * C / groups)."""
    return columns.unflatten(2, (groups, -1)).permute(2, 0, 1, 3).flatten(2)


def _runs(offset: Tensor, channels: int, device: str) -> Iterator[range]:
    """Yield all positions of the output, so many at a time that their columns are one piece."""
    batch, _, kernel, _, height, width = offset.shape
    count = max(_PIECE.get(device, _LARGE_PIECE) // (kernel * channels), 1)
    total = batch * height * width
    for first in range(0, total, count):
        yield range(first, min(first + count, total))


def _empty_out(input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return input.new_empty(offset.shape[0], *offset.shape[4:], weight.shape[0])


@torch.library.register_fake("swin_dense::deform_conv2d")
def _fake(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    trust.look("deform_conv2d", input)
    return _empty_out(input, offset, weight).permute(0, 3, 1, 2)


@torch.library.register_fake("swin_dense::deform_conv2d_backward")
def _fake_backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    of_samples: bool,
    of_weight: bool,
) -> tuple[Tensor, ...]:
    batch, channels, height, width = input.shape
    return (
        input.new_empty(batch, height, width, channels).permute(0, 3, 1, 2),
        offset.new_empty(offset.shape),
        offset.new_empty(0 if mask is None else mask.shape),
        weight.new_empty(weight.shape),
    )


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, bias, stride, padding, dilation = inputs
    ctx.save_for_backward(*tensors)
    ctx.bias, ctx.geometry = bias is not None, (stride, padding, dilation)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    refuse_atomics("deform_conv2d", grad)
    samples = any(ctx.needs_input_grad[:3])
    by_input, by_offset, by_mask, by_weight = torch.ops.swin_dense.deform_conv2d_backward(
        grad, *ctx.saved_tensors, *ctx.geometry, samples, ctx.needs_input_grad[3]
    )
    if ctx.saved_tensors[2] is None:
        by_mask = None
    by_bias = grad.sum((0, 2, 3)) if ctx.bias else None
    return by_input, by_offset, by_mask, by_weight, by_bias, None, None, None


torch.library.register_autograd(
    "swin_dense::deform_conv2d", _backward, setup_context=_setup_context
)
refuse_second("deform_conv2d")


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve, each position of the kernel moved by an offset of its own at every output.

    (B, C, H, W) -> (B, Co, Ho, Wo) in torch.channels_last, of the sizes that a convolution has;
    dtype of `input`, or autocast's. Between positions the input is sampled bilinearly, and it is 0
    outside; a NaN offset gives NaN. Offsets and masks are taken in float32 at least, sums are kept
    in it. Gradients reach all tensors.

    Args:
        offset: (B, G * K * 2, Ho, Wo), for each deformable group and position of the kernel, row
            after row, y then x; in positions of the input.
        weight: (Co, C / groups, kh, kw); of how many groups follows from it.
        bias: (Co,).
        mask: (B, G * K, Ho, Wo), factors on the samples; None for version 1.
    """
    geometry = (_pair("stride", stride), _pair("padding", padding), _pair("dilation", dilation))
    _check(input, offset, weight, bias, *geometry, mask)
    refuse_forward_mode("deform_conv2d", input, offset, weight, bias, mask)
    device = input.device.type
    casts = device != "meta" and torch.is_autocast_enabled(device)  # which meta does not know
    if casts and input.dtype != torch.float64:
        input = input.to(torch.get_autocast_dtype(device))
    trust.look("deform_conv2d", input)
    kernel, exact = weight.shape[2] * weight.shape[3], reference.sum_dtype(input.dtype)
    offset = offset.to(exact).unflatten(1, (-1, kernel, 2)).contiguous()
    return torch.ops.swin_dense.deform_conv2d(
        input,
        offset,
        None if mask is None else mask.to(exact).unflatten(1, (-1, kernel)).contiguous(),
        weight.to(input.dtype),
        None if bias is None else bias.to(input.dtype),
        *geometry,
    )


def _pair(name: str, value: int | tuple[int, ...]) -> tuple[int, ...]:
    try:
        numbers = tuple(value) if isinstance(value, list | tuple) else (value, value)
        return tuple(operator.index(number) for number in numbers)
    except TypeError:
        raise ValueError(
            f"deform_conv2d: {name} is a whole number, or one for rows and one for columns; got "
            f"{value!r}. Leave it out for the usual."
        ) from None


def _check(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    mask: Tensor | None,
) -> None:
    _check_input_and_weight(input, weight)
    size = _checked_out_size(input, weight, stride, padding, dilation)
    groups = _checked_deformable_groups(input, offset, weight, size)
    batch, kernel = input.shape[0], weight.shape[2] * weight.shape[3]
    for name, tensor, shape in (
        ("offset", offset, (batch, groups * 2 * kernel, *size)),
        ("mask", mask, (batch, groups * kernel, *size)),
        ("bias", bias, (weight.shape[0],)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"deform_conv2d: {name} has shape {tuple(tensor.shape)}; for an input of "
                f"{tuple(input.shape)}, a weight of {tuple(weight.shape)} and {groups} deformable "
                f"groups it is {shape}."
            )
    tensors = {"input": input, "weight": weight, "offset": offset, "mask": mask, "bias": bias}
    require_floats("deform_conv2d", **tensors)
    require_one_device("deform_conv2d", **tensors)


def _check_input_and_weight(input: Tensor, weight: Tensor) -> None:
    if input.dim() != 4 or 0 in input.shape[1:]:
        raise ValueError(
            "deform_conv2d: input is (B, C, H, W) with nothing empty but B; it has shape "
            f"{tuple(input.shape)}. Add the batch axis with input[None] if it is missing."
        )
    if weight.dim() != 4 or 0 in weight.shape:
        raise ValueError(
            "deform_conv2d: weight is (Co, C / groups, kernel height, kernel width), not empty; it "
            f"has shape {tuple(weight.shape)}. Give it four axes, as torch.nn.Conv2d has."
        )
    channels = input.shape[1]
    if channels % weight.shape[1] or weight.shape[0] % (channels // weight.shape[1]):
        raise ValueError(
            f"deform_conv2d: weight of shape {tuple(weight.shape)} takes {weight.shape[1]} "
            f"channels for each group; the {channels} channels of input and the {weight.shape[0]} "
            "of the output have to split evenly into groups of that. Give weight the shape "
            "(Co, C / groups, kh, kw)."
        )


def _checked_out_size(
    input: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> list[int]:
    for name, pair, least in (
        ("stride", stride, 1),
        ("padding", padding, 0),
        ("dilation", dilation, 1),
    ):
        if len(pair) != 2 or min(pair) < least:
            raise ValueError(
                f"deform_conv2d: {name} is at least {least}, one number or one for rows and one "
                f"for columns; got {pair}. Leave it out for {least}."
            )
    size = [
        (side + 2 * pad - far * (taps - 1) - 1) // step + 1
        for side, pad, far, taps, step in zip(
            input.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True
        )
    ]
    if min(size) < 1:
        raise ValueError(
            f"deform_conv2d: an input of {tuple(input.shape[2:])} is smaller than the kernel "
            f"{tuple(weight.shape[2:])} with padding {padding} and dilation {dilation}. Pad more."
        )
    return size


def _checked_deformable_groups(
    input: Tensor, offset: Tensor, weight: Tensor, size: list[int]
) -> int:
    channels, kernel = input.shape[1], weight.shape[2] * weight.shape[3]
    if offset.dim() != 4 or offset.shape[1] == 0 or offset.shape[1] % (2 * kernel):
        raise ValueError(
            f"deform_conv2d: offset has y and x for each of the {kernel} positions of the kernel, "
            f"{(input.shape[0], 2 * kernel, *size)} or more channels for more deformable groups; "
            f"it has shape {tuple(offset.shape)}. Give the convolution that makes it {2 * kernel} "
            "outputs for each group."
        )
    groups = offset.shape[1] // (2 * kernel)
    if channels % groups:
        raise ValueError(
            f"deform_conv2d: offset of shape {tuple(offset.shape)} is for {groups} deformable "
            f"groups, into which {channels} channels do not split evenly. Give the convolution "
            f"that makes it {2 * kernel} outputs for each of fewer groups."
        )
    return groups
