"""Deformable attention and deformable convolution under mmcv's names, on the ops of this package.

The functions with "forward" and "backward" in their names are those of `mmcv._ext`, see
ext.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense import ops
from swin_dense.ops import reference


def multi_scale_deformable_attn(
    value: Tensor,
    value_spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    return ops.ms_deform_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_forward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    im2col_step: int,
) -> Tensor:
    return ops.ms_deform_attn(value, spatial_shapes, sampling_loc, attn_weight)


def ms_deform_attn_backward(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_loc: Tensor,
    attn_weight: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add to the last three tensors."""
    dtype = reference.sum_dtype(value.dtype)
    found = torch.ops.swin_dense.ms_deform_attn_backward(
        grad_output, value, spatial_shapes, sampling_loc.to(dtype), attn_weight.to(dtype)
    )
    for target, values in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), found, strict=True
    ):
        target += values


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write `output`."""
    _require_groups(offset, weight, deformable_group)
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    with torch.autocast(input.device.type, enabled=False):  # mmcv has chosen the dtype
        output.copy_(ops.deform_conv2d(input, offset, weight, None, *geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add to `grad_input` and `grad_offset`."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    found = _deform_conv_backward(grad_output, input, offset, None, weight, geometry, (True, False))
    grad_input += found[0]
    grad_offset += found[1]


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add to `grad_weight`, times `scale`."""
    geometry = ((dH, dW), (padH, padW), (dilationH, dilationW))
    weight = grad_weight  # only its shape matters here
    found = _deform_conv_backward(grad_output, input, offset, None, weight, geometry, (False, True))
    grad_weight += scale * found[3]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write `output`."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    _require_groups(offset, weight, deformable_group)
    offset, mask = (_of_output(x, output) for x in (offset, mask))
    with torch.autocast(input.device.type, enabled=False):  # mmcv has chosen the dtype
        found = ops.deform_conv2d(
            input, offset, weight, bias if with_bias else None, *geometry, mask=mask
        )
    output.copy_(found)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add to the gradients but `grad_output`."""
    geometry = ((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    offset, mask = (_of_output(x, grad_output) for x in (offset, mask))
    found = _deform_conv_backward(grad_output, input, offset, mask, weight, geometry, (True, True))
    grad_input += found[0]
    for target, values in ((grad_offset, found[1]), (grad_mask, found[2])):
        count = target[0].numel() if len(target) else 0
        rows = F.pad(values.flatten(1), (0, count - values.shape[1:].numel()))
        target += rows.view(target.shape)
    grad_weight += found[3]
    if with_bias:
        grad_bias += grad_output.sum((0, 2, 3))


def _require_groups(offset: Tensor, weight: Tensor, groups: int) -> None:
    """Refuse an offset for another number of groups: our op counts them by its channels."""
    kernel = weight.shape[2] * weight.shape[3]
    if offset.shape[1] != groups * kernel * 2:
        raise ValueError(
            f"deform_conv: {groups} deformable groups and a kernel of {kernel} positions need "
            f"{groups * kernel * 2} channels of offset; it has shape {tuple(offset.shape)}. Give "
            "the convolution that many, or deform_groups=... what the offset is for."
        )


def _of_output(x: Tensor, output: Tensor) -> Tensor:
    """Return an offset or a mask as mmcv's kernels read it.

    They take it for a map of the output's size whatever its own, image by image. mmdet's DyHead
    gives one of the finer level to a convolution over the coarser, so that there the numbers are
    read in another arrangement; weights trained with it expect that.
    """
    size = output.shape[2:]
    if x.shape[2:] == size:
        return x
    count = x.shape[1] * size[0] * size[1]
    rows = x.flatten(1)
    if rows.shape[1] < count:
        raise ValueError(
            f"modulated_deform_conv: an output of {tuple(size)} needs an offset and a mask at "
            f"least as large; one has shape {tuple(x.shape)}. Make them from a map of the output's "
            "size."
        )
    return rows[:, :count].view(len(x), x.shape[1], *size)


def _deform_conv_backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    geometry: tuple[tuple[int, int], ...],
    wanted: tuple[bool, bool],
) -> tuple[Tensor, ...]:
    """Return the gradients of input, offset, mask and weight, each in the shape of its tensor."""
    kernel, exact = weight.shape[2] * weight.shape[3], reference.sum_dtype(input.dtype)
    places = offset.to(exact).unflatten(1, (-1, kernel, 2)).contiguous()
    factors = None if mask is None else mask.to(exact).unflatten(1, (-1, kernel)).contiguous()
    found = torch.ops.swin_dense.deform_conv2d_backward(
        grad, input, places, factors, weight, *geometry, *wanted
    )
    by_mask = found[2] if mask is None else found[2].flatten(1, 2)
    return found[0], found[1].flatten(1, 3), by_mask, found[3]
