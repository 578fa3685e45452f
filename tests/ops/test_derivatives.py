"""Derivatives that our ops do not have are refused, never 0."""

import pytest
import torch
from torch.autograd import forward_ad

from swin_dense.ops import (
    deform_conv2d,
    extension,
    ms_deform_attn,
    roi_align,
    window_attention,
)

pytestmark = pytest.mark.plain

CALLS = {
    "roi_align": (
        lambda x: roi_align(x, torch.tensor([[0, 1.0, 1.0, 5.0, 4.0]]), (2, 3)),
        (1, 2, 6, 7),
    ),
    "ms_deform_attn": (
        lambda x: ms_deform_attn(
            x, [(2, 3)], torch.full((1, 2, 1, 1, 2, 2), 0.4), torch.ones(1, 2, 1, 1, 2)
        ),
        (1, 6, 1, 4),
    ),
    "deform_conv2d": (
        lambda x: deform_conv2d(x, torch.full((1, 18, 4, 5), 0.3), torch.ones(3, 2, 3, 3)),
        (1, 2, 6, 7),
    ),
    "window_attention": (
        lambda x: window_attention(x, torch.zeros(1, 4, 4), torch.zeros(3, 1, 5), 2, 1),
        (1, 3, 4, 3, 1, 5),
    ),
}


@pytest.fixture(params=CALLS)
def case(request):
    """Name, call and an input of an op."""
    call, shape = CALLS[request.param]
    if request.param == "window_attention" and extension.MISSING:
        pytest.skip("without kernels this op is SDPA, which has them")
    return request.param, call, torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_second_derivatives(case):
    name, call, x = case
    x.requires_grad_()
    grad = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=f"{name}: it has no second derivative"):
        grad.square().sum().backward()


def test_forward_mode(case):
    name, call, x = case
    with (
        forward_ad.dual_level(),
        pytest.raises(RuntimeError, match=f"{name}: it has no forward-mode"),
    ):
        call(forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(RuntimeError, match=f"{name}: it has no forward-mode"):
        torch.func.jvp(call, (x,), (torch.ones_like(x),))
