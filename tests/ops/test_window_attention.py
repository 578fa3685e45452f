"""Window attention against a scalar oracle that works on the original map, one query at a time."""

import math

import pytest
import torch
from torch import Tensor

from swin_dense.ops.window_attention import _addresses, window_attention

# (B, H, W, N, D, window, shift): no two letters equal within a row where that can be.
CASES = {
    "whole windows": (2, 6, 9, 4, 5, 3, 0),
    "whole windows, shifted": (2, 6, 9, 4, 5, 3, 1),
    "ragged": (2, 5, 7, 3, 6, 4, 0),
    "ragged, shifted": (2, 5, 7, 3, 6, 4, 2),
    "ragged, shifted by more": (1, 7, 10, 2, 3, 4, 3),
    "lower than a window": (2, 1, 8, 3, 4, 5, 2),
    "narrower than a window": (3, 7, 2, 1, 6, 5, 2),
    "smaller than the shift": (2, 1, 2, 3, 5, 7, 3),
    "one token": (2, 1, 1, 3, 4, 7, 3),
}


def sample(case: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    batch, height, width, heads, head_dim, window, _ = case
    random = torch.Generator().manual_seed(0)
    shapes = (
        (batch, height, width, 3, heads, head_dim),
        (heads, window * window, window * window),
        (3, heads, head_dim),
    )
    return [torch.randn(s, generator=random, dtype=torch.float64).to(dtype) for s in shapes]


def by_hand(qkv: Tensor, bias: Tensor, pad: Tensor, window: int, shift: int) -> Tensor:
    """Which tokens share a window follows from their place on the turned map, not from a cut."""
    batch, height, width, _, heads, head_dim = qkv.shape
    tall, wide = (math.ceil(n / window) * window for n in (height, width))

    def turned(y: int, x: int) -> tuple[int, int]:
        return (y - shift) % tall, (x - shift) % wide

    def token(b: int, y: int, x: int) -> Tensor:
        return qkv[b, y, x] if y < height and x < width else pad

    def sees(one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Same window of the turned map, and not joined only by going around the border."""
        for p, o, size in zip(one, other, (tall, wide), strict=True):
            t, u = (p - shift) % size, (o - shift) % size
            if t // window != u // window or t - u != p - o:
                return False
        return True

    out = torch.zeros(batch, height, width, heads, head_dim, dtype=torch.float64)
    places = [(y, x) for y in range(tall) for x in range(wide)]
    for y, x in ((y, x) for y in range(height) for x in range(width)):
        seen = [place for place in places if sees((y, x), place)]
        i = turned(y, x)[0] % window * window + turned(y, x)[1] % window
        for b in range(batch):
            for n in range(heads):
                logits = []
                for place in seen:
                    r, c = turned(*place)
                    j = r % window * window + c % window
                    dot = sum(
                        p * q
                        for p, q in zip(
                            token(b, y, x)[0, n].tolist(),
                            token(b, *place)[1, n].tolist(),
                            strict=True,
                        )
                    )
                    logits.append(dot / math.sqrt(head_dim) + bias[n, i, j].item())
                weights = [math.exp(logit) for logit in logits]
                for weight, place in zip(weights, seen, strict=True):
                    out[b, y, x, n] += weight / sum(weights) * token(b, *place)[2, n]
    return out.flatten(3)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_means_the_formula(case: tuple[int, ...]) -> None:
    inputs, geometry = sample(case), case[-2:]
    torch.testing.assert_close(window_attention(*inputs, *geometry), by_hand(*inputs, *geometry))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients(case: tuple[int, ...]) -> None:
    inputs = [x.requires_grad_() for x in sample(case)]
    geometry = case[-2:]
    torch.autograd.gradcheck(lambda *x: window_attention(*x, *geometry), inputs, fast_mode=True)


def test_gradients_of_every_entry() -> None:
    inputs = [x.requires_grad_() for x in sample((1, 3, 2, 2, 1, 2, 1))]
    torch.autograd.gradcheck(lambda *x: window_attention(*x, 2, 1), inputs)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_close(dtype: torch.dtype, atol: float, shift: int) -> None:
    inputs = sample((2, 9, 17, 3, 8, 7, shift), dtype)
    out = window_attention(*inputs, 7, shift)
    assert out.dtype == dtype
    exact = window_attention(*(x.double() for x in inputs), 7, shift)
    torch.testing.assert_close(out.double(), exact, atol=atol, rtol=0.02)


def test_scale_is_a_factor_on_q() -> None:
    qkv, bias, pad = sample((2, 5, 7, 3, 6, 4, 2))
    factor = torch.tensor([2.0, 1.0, 1.0], dtype=qkv.dtype)[:, None, None]
    want = window_attention(qkv * factor, bias, pad * factor, 4, 2)
    torch.testing.assert_close(window_attention(qkv, bias, pad, 4, 2, scale=2 * 6**-0.5), want)


def test_takes_a_view_and_no_image() -> None:
    qkv, bias, pad = sample((2, 5, 7, 3, 6, 4, 2))
    view = qkv.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(
        window_attention(view, bias, pad, 4, 2), window_attention(qkv, bias, pad, 4, 2)
    )
    none = qkv[:0].requires_grad_()
    out = window_attention(none, bias, pad, 4, 2)
    assert out.shape == (0, 5, 7, 18)
    out.sum().backward()
    assert none.grad.shape == none.shape


def test_evaluation_first_does_not_spoil_training() -> None:
    _addresses.cache_clear()
    qkv, bias, pad = sample((2, 5, 7, 3, 6, 4, 2))
    with torch.inference_mode():
        window_attention(qkv, bias, pad, 4, 2)
    window_attention(qkv.requires_grad_(), bias, pad, 4, 2).sum().backward()


def test_many_sizes_do_not_fill_the_memory() -> None:
    for width in range(1, 60):
        window_attention(*sample((1, 2, width, 1, 2, 3, 1)), 3, 1)
    kept = _addresses.cache_info()
    assert kept.currsize <= kept.maxsize <= 64


def test_a_traced_call_leaves_nothing_behind() -> None:
    _addresses.cache_clear()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in sample((2, 5, 7, 3, 6, 4, 2))]
        assert window_attention(*fake, 4, 2).shape == (2, 5, 7, 18)
    assert _addresses.cache_info().currsize == 0


def test_compiles_as_one_graph() -> None:
    compiled = torch.compile(window_attention, backend="aot_eager", fullgraph=True)
    inputs = [x.requires_grad_() for x in sample((2, 5, 7, 3, 6, 4, 2))]
    out = compiled(*inputs, 4, 2)
    torch.testing.assert_close(out, window_attention(*inputs, 4, 2))
    out.sum().backward()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"qkv": (2, 5, 7, 54)}, r"\(B, H, W, 3, heads, head_dim\).*\(2, 5, 7, 54\).* Unflatten"),
        ({"qkv": (2, 0, 7, 3, 3, 6)}, r"nothing empty but B.*\(2, 0, 7, 3, 3, 6\)"),
        ({"bias": (3, 9, 9)}, r"bias has shape \(3, 9, 9\).*need \(3, 16, 16\)\. Resize"),
        ({"pad_qkv": (3, 18)}, r"pad_qkv has shape \(3, 18\).*needs \(3, 3, 6\)\. Pass the bias"),
        ({"window": 0}, r"window 0, shift 2\. Shift by window // 2"),
        ({"shift": 4}, r"window 4, shift 4\. Shift by window // 2"),
        ({"shift": -1}, r"window 4, shift -1\. Shift by window // 2"),
    ],
)
def test_errors_say_what_to_do(change: dict, text: str) -> None:
    qkv, bias, pad = sample((2, 5, 7, 3, 6, 4, 2))
    arguments = {"qkv": qkv, "bias": bias, "pad_qkv": pad, "window": 4, "shift": 2}
    made = {k: torch.zeros(v) if isinstance(v, tuple) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=text):
        window_attention(**{**arguments, **made})
