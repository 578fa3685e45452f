from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swin_dense.ops.reference.bilinear import sum_samples, sum_samples_backward


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
        size = input.shape[1:3]
        for image, run, rows in _runs(offset, first, len(out)):
            points = _points(image, run, y, x, mask)
            samples = sum_samples(_maps(input[image], offset), size, *points)
            out[rows] = samples.view(out[rows].shape).to(out.dtype)


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
        size = input.shape[1:3]
        for image, run, rows in _runs(offset, first, len(grad)):
            maps, points = _maps(input[image], offset), _points(image, run, y, x, mask)
            given = grad[rows].view(1, -1, *maps.shape[2:])
            by_maps, *by_points = sum_samples_backward(given, maps, size, *points)
            grad_input[image] += by_maps.view(grad_input[image].shape)
            # (1, P K, G, 1) -> (G, K, P)
            shape = (-1, offset.shape[2], offset.shape[1])
            by_y, by_x, by_mask = (part.reshape(shape).permute(2, 1, 0) for part in by_points)
            grad_offset[image].flatten(3)[..., run] = torch.stack([by_y, by_x], 2)
            if grad_mask is not None:
                grad_mask[image].flatten(2)[..., run] = by_mask


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


def _points(
    image: int, run: slice, y: Tensor, x: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, x and factor of the samples of a run: each (1, P * K, G, 1), as out has them."""
    y, x = y[image, ..., run], x[image, ..., run]  # (G, K, P)
    factor = torch.ones_like(y) if mask is None else mask[image].flatten(2)[..., run]
    y, x, factor = (part.permute(2, 1, 0).flatten(0, 1)[None, ..., None] for part in (y, x, factor))
    return y, x, factor


def _maps(image: Tensor, offset: Tensor) -> Tensor:
    """(H, W, C) -> (1, H W, G, C / G)."""
    return image.flatten(0, 1).unflatten(1, (offset.shape[1], -1))[None]
