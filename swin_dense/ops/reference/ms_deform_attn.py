from collections.abc import Iterator

import torch
from torch import Tensor

from swin_dense.ops.reference.bilinear import sum_samples, sum_samples_backward
from swin_dense.ops.reference.precision import sum_dtype


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    with torch.autocast(value.device.type, enabled=False):
        batch, _, heads, channels = value.shape
        queries = attention_weights.shape[1]
        shape = (batch, queries, heads, channels)
        out = value.new_zeros(shape, dtype=sum_dtype(value.dtype))
        if out.numel() and attention_weights.numel():
            for number, positions, size in _levels(spatial_shapes):
                points = _points(sampling_locations, attention_weights, number, size)
                out += sum_samples(value[:, positions], size, *points)
        return out.flatten(2).to(value.dtype)


def ms_deform_attn_backward(
    grad: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of value, sampling_locations and attention_weights."""
    with torch.autocast(value.device.type, enabled=False):
        batch, _, heads, channels = value.shape
        by_value = torch.zeros_like(value, memory_format=torch.contiguous_format)
        dense = torch.contiguous_format
        by_locations = torch.zeros_like(sampling_locations, memory_format=dense)
        by_weights = torch.zeros_like(attention_weights, memory_format=dense)
        if grad.numel() == 0 or attention_weights.numel() == 0:
            return by_value, by_locations, by_weights
        given = grad.view(batch, -1, heads, channels)
        for number, positions, size in _levels(spatial_shapes):
            points = _points(sampling_locations, attention_weights, number, size)
            back = sum_samples_backward(given, value[:, positions], size, *points)
            by_maps, by_y, by_x, by_weights[:, :, :, number] = back
            by_value[:, positions] = by_maps.to(value.dtype)
            by_points = torch.stack([by_x * size[1], by_y * size[0]], -1)
            by_locations[:, :, :, number] = by_points
        return by_value, by_locations, by_weights


def _levels(spatial_shapes: Tensor) -> Iterator[tuple[int, slice, tuple[int, int]]]:
    """Number, place among the keys, height and width of every map that is not empty."""
    start = 0
    for number, (height, width) in enumerate(spatial_shapes.tolist()):
        if height * width:
            yield number, slice(start, start + height * width), (height, width)
        start += height * width


def _points(
    locations: Tensor, weights: Tensor, number: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y and x of one map's points, in positions, and their weights; each (B, Q, N, P)."""
    part = locations[:, :, :, number]
    y, x = part[..., 1] * size[0] - 0.5, part[..., 0] * size[1] - 0.5
    return y, x, weights[:, :, :, number]
