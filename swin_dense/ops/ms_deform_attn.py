"""Multi-scale deformable attention: each query reads a few points of several maps.

Letters: B images, K positions of all maps together, N heads, D channels of a head, Q queries,
L maps (levels), P points in each.
"""

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from swin_dense.ops import reference, trust
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_atomics, refuse_forward_mode, refuse_second

_ARGUMENTS = (
    "Tensor value, Tensor spatial_shapes, Tensor sampling_locations, Tensor attention_weights"
)
torch.library.define("swin_dense::ms_deform_attn", f"({_ARGUMENTS}) -> Tensor")
torch.library.define(
    "swin_dense::ms_deform_attn_backward",
    f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)",
)
torch.library.impl(
    "swin_dense::ms_deform_attn", "CompositeExplicitAutograd", reference.ms_deform_attn
)
torch.library.impl(
    "swin_dense::ms_deform_attn_backward",
    "CompositeExplicitAutograd",
    reference.ms_deform_attn_backward,
)


@torch.library.register_fake("swin_dense::ms_deform_attn")
def _fake(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    trust.look("ms_deform_attn", value)
    batch, queries = attention_weights.shape[:2]
    return value.new_empty(batch, queries, value.shape[2] * value.shape[3])


@torch.library.register_fake("swin_dense::ms_deform_attn_backward")
def _fake_backward(
    grad: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (value, sampling_locations, attention_weights))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    refuse_atomics("ms_deform_attn", grad)
    by_value, by_locations, by_weights = torch.ops.swin_dense.ms_deform_attn_backward(
        grad, *ctx.saved_tensors
    )
    return by_value, None, by_locations, by_weights


torch.library.register_autograd(
    "swin_dense::ms_deform_attn", _backward, setup_context=_setup_context
)
refuse_second("ms_deform_attn")


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor | Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Add up what the maps hold at the points of each query, weighted (arXiv 2010.04159, eq. 3).

    (B, K, N, D) -> (B, Q, N * D), dtype of `value`. Between positions the maps are sampled
    bilinearly, and they are 0 outside. Sums are kept in float32 at least, and locations and
    weights are taken in that, whatever the dtype of `value`. Autocast changes nothing here.
    Gradients reach all three tensors; on the CPU they are the same for any number of threads.

    A query with a location that is NaN becomes NaN, unless the map is empty. With spatial_shapes
    that do not add up to K, the result is NaN on devices where looking would mean waiting.

    Args:
        value: the maps, each row after row, one behind the other; projected, in heads.
        spatial_shapes: height and width of each map, (L, 2); empty maps are allowed.
        sampling_locations: (B, Q, N, L, P, 2), x then y, from 0 to 1 over the map, its edges
            included: the centre of the first of W columns is 0.5 / W.
        attention_weights: (B, Q, N, L, P), usually adding up to 1 over the last two axes.
    """
    if not isinstance(spatial_shapes, Tensor):
        spatial_shapes = _as_tensor(spatial_shapes, value)
    _check(value, spatial_shapes, sampling_locations, attention_weights)
    refuse_forward_mode("ms_deform_attn", value, sampling_locations, attention_weights)
    trust.look("ms_deform_attn", value)
    dtype = reference.sum_dtype(value.dtype)
    return torch.ops.swin_dense.ms_deform_attn(
        value, spatial_shapes.long(), sampling_locations.to(dtype), attention_weights.to(dtype)
    )


def _as_tensor(sizes: Sequence[tuple[int, int]], value: Tensor) -> Tensor:
    # A tensor that only stands for one (tracing, fake mode, torch.func) must not be kept.
    traced = (
        torch.compiler.is_compiling()
        or type(value) is not Tensor
        or torch._C._are_functorch_transforms_active()
    )
    make = _table.__wrapped__ if traced else _table
    try:
        pairs = tuple(tuple(operator.index(side) for side in size) for size in sizes)
        if any(len(pair) != 2 for pair in pairs):
            raise TypeError
        return make(pairs, value.device)
    except (TypeError, RuntimeError, OverflowError):
        raise ValueError(
            "ms_deform_attn: spatial_shapes are height and width of each map, (L, 2), whole "
            f"numbers; got {sizes}. Pass e.g. [(100, 152), (50, 76)]."
        ) from None


# A GPU would have to be waited for at every copy of sizes to it. There are as many as sizes of
# image; each is some hundred bytes.
@lru_cache(maxsize=4096)
@torch.inference_mode(False)  # else an evaluation first would make tables no training can use
def _table(pairs: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2)


def _check(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> None:
    if value.dim() != 4:
        raise ValueError(
            "ms_deform_attn: value is (B, K, heads, channels of a head); it has shape "
            f"{tuple(value.shape)}. Unflatten its last axis."
        )
    if attention_weights.dim() != 5:
        raise ValueError(
            "ms_deform_attn: attention_weights are (B, Q, heads, levels, points); they have shape "
            f"{tuple(attention_weights.shape)}. Unflatten the last axis into levels and points."
        )
    batch, keys, heads = value.shape[:3]
    if attention_weights.shape[0] != batch or attention_weights.shape[2] != heads:
        raise ValueError(
            f"ms_deform_attn: value of shape {tuple(value.shape)} has {batch} images and {heads} "
            "heads; attention_weights (B, Q, heads, levels, points) have shape "
            f"{tuple(attention_weights.shape)}. Are two axes exchanged?"
        )
    if sampling_locations.shape != (*attention_weights.shape, 2):
        raise ValueError(
            "ms_deform_attn: sampling_locations are x and y for each weight, "
            f"{(*attention_weights.shape, 2)}; they have shape {tuple(sampling_locations.shape)}. "
            "Expand them to heads, levels and points."
        )
    levels = attention_weights.shape[3]
    integers = not (spatial_shapes.is_floating_point() or spatial_shapes.is_complex())
    if spatial_shapes.shape != (levels, 2) or not integers or spatial_shapes.dtype == torch.bool:
        raise ValueError(
            f"ms_deform_attn: spatial_shapes are height and width of each of {levels} maps, "
            f"integers of shape {(levels, 2)}; got shape {tuple(spatial_shapes.shape)} and "
            f"{spatial_shapes.dtype}. Give one row for each level of attention_weights."
        )
    numbers = {
        "value": value,
        "sampling_locations": sampling_locations,
        "attention_weights": attention_weights,
    }
    require_floats("ms_deform_attn", **numbers)
    require_one_device("ms_deform_attn", **numbers, spatial_shapes=spatial_shapes)
    traced = torch.compiler.is_compiling() or isinstance(spatial_shapes, FakeTensor)
    if value.device.type == "cpu" and not traced:
        sizes = spatial_shapes.tolist()
        positions = sum(height * width for height, width in sizes)
        if positions != keys or any(side < 0 for size in sizes for side in size):
            raise ValueError(
                f"ms_deform_attn: the maps of spatial_shapes {sizes} have {positions} positions, "
                f"value of shape {tuple(value.shape)} has {keys}. Flatten each map row after row "
                "and put them one behind the other, in the order of spatial_shapes."
            )
