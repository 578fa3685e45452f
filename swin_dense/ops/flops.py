"""What our ops cost, for torch's counter (torch.utils.flop_counter): a multiply-add counts two.

Products and samples between positions are counted; softmax and norms are not, as torch does not
count them either. RoIAlign and NMS have no formula: their cost depends on the boxes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Shape = Sequence[int]

_ops = torch.ops.swin_dense
_SAMPLE = 4  # multiply-adds of a bilinear sample


@register_flop_formula(_ops.window_attention)
def window_attention(qkv: Shape, bias: Shape, pad: Shape, scale: Shape, window: int, *_, **__):  # type: ignore[no-untyped-def]
    """Count the logits and their product with the values; windows at the border count whole."""
    images, height, width, _three, heads, head_dim = qkv
    windows = images * math.ceil(height / window) * math.ceil(width / window)
    return 2 * 2 * windows * heads * window**4 * head_dim


@register_flop_formula(_ops.window_attention_backward)
def window_attention_backward(grad: Shape, *inputs: Any, **_: Any) -> int:
    """Count the logits anew, and the gradients of both sides of both products."""
    return window_attention(*inputs) * 5 // 2


@register_flop_formula(_ops.neighborhood_attention)
def neighborhood_attention(  # type: ignore[no-untyped-def]
    query: Shape, key: Shape, value: Shape, table: Shape, window: int, *_, **__
) -> int:
    """Count the logits and their product with the values."""
    return 2 * 2 * math.prod(query) * window**2


@register_flop_formula(_ops.neighborhood_attention_backward)
def neighborhood_attention_backward(grad: Shape, *inputs: Any, **_: Any) -> int:
    """Count the logits anew, and the gradients of both sides of both products."""
    return neighborhood_attention(*inputs) * 5 // 2


@register_flop_formula(_ops.decomposed_attention)
def decomposed_attention(query: Shape, key: Shape, *_: Any, **__: Any) -> int:
    """Count the logits and their product with the values; the terms were products before."""
    return 2 * 2 * math.prod(query) * key[2]


@register_flop_formula(_ops.decomposed_attention_backward)
def decomposed_attention_backward(grad: Shape, *inputs: Any, **_: Any) -> int:
    """Count the logits anew, and the gradients of both sides of both products."""
    return decomposed_attention(*inputs) * 5 // 2


@register_flop_formula(_ops.ms_deform_attn)
def ms_deform_attn(
    value: Shape, spatial_shapes: Shape, locations: Shape, *_: Any, **__: Any
) -> int:
    """Count a sample for each point and channel, and its product with the weight."""
    images, queries, heads, levels, points, _two = locations
    return 2 * (_SAMPLE + 1) * images * queries * heads * levels * points * value[3]


@register_flop_formula(_ops.ms_deform_attn_backward)
def ms_deform_attn_backward(grad: Shape, *inputs: Any, **_: Any) -> int:
    """Count the forward three times: for the gradients of values, weights and locations."""
    return 3 * ms_deform_attn(*inputs)


@register_flop_formula(_ops.deform_conv2d)
def deform_conv2d(input: Shape, offset: Shape, mask: Shape | None, weight: Shape, *_, **__):  # type: ignore[no-untyped-def]
    """Count a convolution's product, and a sample for each number that goes into it."""
    sampled, product = _deform_conv2d(input, offset, weight)
    return 2 * (sampled + product)


@register_flop_formula(_ops.deform_conv2d_backward)
def deform_conv2d_backward(  # type: ignore[no-untyped-def]
    grad: Shape, input: Shape, offset: Shape, mask: Shape | None, weight: Shape, *rest, **_
):
    """Count samples and product anew for the weight; for the rest a product, samples both ways."""
    sampled, product = _deform_conv2d(input, offset, weight)
    *_geometry, of_samples, of_weight = rest
    return 2 * ((sampled + product) * bool(of_weight) + (3 * sampled + product) * bool(of_samples))


def _deform_conv2d(input: Shape, offset: Shape, weight: Shape) -> tuple[int, int]:
    """Count the multiply-adds of all samples, and of the product."""
    positions = offset[0] * offset[4] * offset[5]
    taps = weight[2] * weight[3]
    return (
        _SAMPLE * positions * taps * input[1],
        positions * taps * weight[0] * weight[1],
    )


def _attention_on_cpu(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_on_cpu_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *_, **__):  # type: ignore[no-untyped-def]
    return sdpa_backward_flop_count(grad, query, key, value)


# torch counts its own attention on GPUs only; without our kernels windows go through it, too.
for _op, _formula in (
    (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, _attention_on_cpu),
    (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
        _attention_on_cpu_backward,
    ),
):
    if _op not in flop_registry:
        register_flop_formula(_op)(_formula)
