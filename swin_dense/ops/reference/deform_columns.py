from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swin_dense.ops.reference.bilinear import sample, sample_backward
from swin_dense.ops.reference.precision import sum_dtype


def deform_columns(
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel_width: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    first: int,
    out: Tensor,
) -> None:
    """Write what a deformable convolution multiplies its weight with, for a run of positions.

    Letters: G deformable groups, K positions of the kernel, P positions of the output.

    Args:
        input: (B, H, W, C).
        offset: (B, G, K, 2, Ho, Wo), y then x, in positions of the input.
        mask: (B, G, K, Ho, Wo), factors on the samples.
        first: of the P positions, counted through all images.
        out: (P, K, C), written.
    """
    with torch.autocast(input.device.type, enabled=False):
        y, x = _places(offset, kernel_width, stride, padding, dilation)
        for image, run, rows in _runs(offset, first, len(out)):
            samples = sample(_maps(input[image], offset), y[image, ..., run], x[image, ..., run])
            if mask is not None:
                samples = samples * mask[image].flatten(2)[:, None, :, run]
            out[rows] = samples.flatten(0, 1).permute(2, 1, 0).to(out.dtype)


def deform_columns_backward(
    grad: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    kernel_width: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    first: int,
    grad_input: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor | None,
) -> None:
    """Adds to `grad_input`; writes the others at the positions of `grad`, (P, K, C)."""
    with torch.autocast(input.device.type, enabled=False):
        y, x = _places(offset, kernel_width, stride, padding, dilation)
        groups = offset.shape[1]
        for image, run, rows in _runs(offset, first, len(grad)):
            maps = _maps(input[image], offset)
            places = y[image, ..., run], x[image, ..., run]
            given = grad[rows].permute(2, 1, 0).unflatten(0, (groups, -1)).to(maps.dtype)
            if mask is not None and grad_mask is not None:
                products = (sample(maps, *places) * given).sum(1)
                grad_mask[image].flatten(2)[..., run] = products
                given = given * mask[image].flatten(2)[:, None, :, run]
            by_maps, by_y, by_x = sample_backward(given.contiguous(), maps, *places)
            grad_input[image] += by_maps.flatten(0, 1).permute(1, 2, 0)
            grad_offset[image].flatten(3)[..., run] = torch.stack([by_y, by_x], 2)


def _places(
    offset: Tensor,
    kernel_width: int,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return the places of all outputs' samples in the input: y and x, each (B, G, K, Ho Wo)."""
    kernel, _, height, width = offset.shape[2:]
    number = torch.arange(kernel, device=offset.device)
    parts = zip((number // kernel_width, number % kernel_width), (height, width), strict=True)
    grids = []
    for axis, (tap, size) in enumerate(parts):
        at = torch.arange(size, device=offset.device) * stride[axis] - padding[axis]
        at = at[:, None] if axis == 0 else at[None]
        grids.append(offset[:, :, :, axis] + (at + (tap * dilation[axis])[:, None, None]))
    return grids[0].flatten(3), grids[1].flatten(3)


def _runs(offset: Tensor, first: int, count: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield of each image that the run touches its number, its positions, their rows in the run."""
    size = offset.shape[4] * offset.shape[5]
    for image in range(offset.shape[0]):
        begin, end = max(first, image * size), min(first + count, (image + 1) * size)
        if begin < end:
            yield (
                image,
                slice(begin - image * size, end - image * size),
                slice(begin - first, end - first),
            )


def _maps(image: Tensor, offset: Tensor) -> Tensor:
    """(H, W, C) -> (G, C / G, H, W), as sums are kept."""
    image = image.permute(2, 0, 1).unflatten(0, (offset.shape[1], -1))
    return image.to(sum_dtype(image.dtype)).contiguous()
