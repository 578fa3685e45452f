"""Rows about deformable attention and convolution, at the sizes of DINO and DyHead.

Four maps of strides 8 to 64, 8 heads of 32 channels, 4 points in each map. In the encoder every
position of the maps is a query and reads around itself, in the decoder 900 queries read around
places anywhere.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense import ops
from swin_dense.benchmarks import ratios
from swin_dense.benchmarks.ratios import Case, LeftOutError, Pair

STRIDES, HEADS, CHANNELS, POINTS = (8, 16, 32, 64), 8, 32, 4
DECODER = 900
FAR = 3.0  # positions from the query, one standard deviation
PUBLISHED, PLAIN = "mmcv's plain torch", "plain torch"

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def cases(device: str, shape: tuple[int, int]) -> list[Case]:
    """`shape`: long and short side of the image."""
    rows = []
    for dtype, suffix in {torch.float32: "", torch.bfloat16: ", bf16"}.items():
        for part in ("encoder", "decoder"):
            for both_ways in (False, True):
                what = "forward and backward" if both_ways else "forward"
                measure = functools.partial(_attention, device, shape, part, dtype, both_ways)
                rows.append(Case(f"ms_deform_attn, {part}, {what}{suffix}", PUBLISHED, measure))
    for both_ways in (False, True):
        what = "forward and backward" if both_ways else "forward"
        measure = functools.partial(_convolution, device, shape, both_ways)
        rows.append(Case(f"deform_conv2d, 256 channels, {what}", PLAIN, measure))
    return rows


def published() -> Attention:
    """mmcv's own function.

    Raises:
        LeftOutError: it is not installed.
    """
    try:
        from swin_dense.openmmlab import peers
    except ImportError as error:
        raise LeftOutError(f"{PUBLISHED}: not installed, left out") from error
    return peers.published_ms_deform_attn()


def attention_inputs(
    device: str, shape: tuple[int, int], part: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """value, spatial_shapes, sampling_locations and attention_weights, the same every time."""
    random = torch.Generator().manual_seed(0)
    sizes = [(-(-shape[1] // stride), -(-shape[0] // stride)) for stride in STRIDES]
    centres = [torch.cartesian_prod(*((torch.arange(n) + 0.5) / n for n in hw)) for hw in sizes]
    at = torch.cat(centres).flip(1)  # x, y
    if part == "decoder":
        at = torch.rand(DECODER, 2, generator=random)
    lead = (1, len(at), HEADS, len(sizes), POINTS)
    far = torch.randn(*lead, 2, generator=random) * FAR
    far = far / torch.tensor(sizes).flip(1)[:, None]
    weights = torch.randn(*lead[:3], len(sizes) * POINTS, generator=random).softmax(-1)
    keys = sum(height * width for height, width in sizes)
    value = torch.randn(1, keys, HEADS, CHANNELS, generator=random)
    tensors = (value.to(dtype), torch.tensor(sizes), at[:, None, None, None] + far, weights)
    value, shapes, locations, weights = (x.to(device) for x in tensors)
    return value, shapes, locations, weights.view(lead)


def run(path: Attention, inputs: tuple[Tensor, Tensor, Tensor, Tensor], both_ways: bool) -> None:
    value, shapes, locations, weights = inputs
    if not both_ways:
        with torch.inference_mode():
            path(*inputs)
        return
    leaves = [x.requires_grad_() for x in (value, locations, weights)]
    out = path(value, shapes, locations, weights)
    torch.autograd.grad(out, leaves, torch.ones_like(out))


def same_dtype(path: Attention) -> Attention:
    """Cast all to the dtype of `value` before `path`: the published function takes only one."""

    def call(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return path(value, shapes, locations.to(value.dtype), weights.to(value.dtype))

    return call


def _attention(
    device: str,
    shape: tuple[int, int],
    part: str,
    dtype: torch.dtype,
    both_ways: bool,
    seconds: float,
) -> Pair:
    theirs, inputs = same_dtype(published()), attention_inputs(device, shape, part, dtype)
    return ratios.pair(
        functools.partial(run, ops.ms_deform_attn, inputs, both_ways),
        functools.partial(run, theirs, inputs, both_ways),
        seconds,
    )


def _convolution(device: str, shape: tuple[int, int], both_ways: bool, seconds: float) -> Pair:
    """3x3, 256 to 256 channels, modulated, on the map of stride 8."""
    torch.manual_seed(0)
    size = (-(-shape[1] // STRIDES[0]), -(-shape[0] // STRIDES[0]))
    leaves = [
        torch.randn(1, 256, *size, device=device),
        torch.randn(1, 18, *size, device=device),
        torch.rand(1, 9, *size, device=device),
        torch.randn(256, 256, 3, 3, device=device) / 48,
    ]

    def ours(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        return ops.deform_conv2d(input, offset, weight, padding=1, mask=mask)

    def call(path: Callable[..., Tensor]) -> None:
        with torch.inference_mode(not both_ways):
            out = path(*(x.requires_grad_(both_ways) for x in leaves))
        if both_ways:
            torch.autograd.grad(out, leaves, torch.ones_like(out))

    return ratios.pair(
        functools.partial(call, ours), functools.partial(call, _plain_convolution), seconds
    )


def _plain_convolution(input: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Convolve as usual in plain torch: grid_sample for each place in the kernel, one product."""
    height, width = offset.shape[2:]
    rows = torch.arange(height, device=input.device)[:, None] - 1
    columns = torch.arange(width, device=input.device) - 1
    tap = torch.arange(9, device=input.device)[:, None, None]
    places = offset.unflatten(1, (9, 2))
    y, x = places[:, :, 0] + rows + tap // 3, places[:, :, 1] + columns + tap % 3
    samples = _sample(input, y.flatten(2), x.flatten(2)) * mask.flatten(2)[:, None]
    return (weight.flatten(1) @ samples.flatten(1, 2)).unflatten(2, (height, width))


def _sample(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(M, C, H, W), twice (M, R, S) -> (M, C, R, S): by grid_sample, as is usual in plain torch."""
    height, width = maps.shape[2:]
    y, x = y.clamp(-2, height + 1), x.clamp(-2, width + 1)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    return F.grid_sample(maps, grid, align_corners=False)
