"""Window attention by every back end: against scalar loops, and against what it promises."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import scalar_loops
import torch
from devices import DEVICES, needs_cuda, needs_kernels
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from swin_dense.ops import extension, reference, window_gather
from swin_dense.ops.window_attention import BACK_ENDS, choose, window_attention

pytestmark = pytest.mark.plain

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
RAGGED = CASES["ragged, shifted"]
ODD_SIZES = {
    "heads of 1": (2, 9, 5, 3, 1, 4, 2),
    "heads of 17": (2, 8, 15, 3, 17, 7, 3),
    "heads of 32": (1, 20, 15, 3, 32, 7, 3),
    "heads of 33": (1, 9, 16, 5, 33, 7, 0),
    "heads of 64": (1, 9, 16, 6, 64, 8, 5),
    "window 1": (2, 3, 5, 4, 64, 1, 0),
    "window 2": (2, 3, 5, 4, 64, 2, 1),
    "window 3": (1, 4, 7, 2, 40, 3, 1),
    "window 12": (1, 23, 13, 2, 5, 12, 6),
    "window 16": (1, 15, 30, 2, 32, 16, 9),
    "window 32": (1, 20, 40, 2, 5, 32, 16),
}
ALL = ("qkv", "bias", "pad_qkv", "scale")
NAMES = [pytest.param("kernel", marks=needs_kernels), "sdpa", "plain"]
# The name of the package's function hides that of its module.
front = sys.modules["swin_dense.ops.window_attention"]


@pytest.fixture(params=[*NAMES, "flex"])
def back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "flex":
        # Uncompiled it is slow, and right on every device.
        anywhere = [dataclasses.replace(b, why_not=lambda *_: None) for b in BACK_ENDS]
        monkeypatch.setattr(front, "BACK_ENDS", anywhere)
        monkeypatch.setattr(window_gather, "_compiled_flex", lambda: flex_attention)
    return request.param


def finest(back_end: str) -> torch.dtype:
    return torch.float32 if back_end == "kernel" else torch.float64


def sample(
    case: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[Tensor]:
    """qkv, bias, pad_qkv and scale; the numbers that make logits stay in float32 at least."""
    batch, height, width, heads, head_dim, window, _ = case
    random = torch.Generator().manual_seed(seed)
    shapes = (
        (batch, height, width, 3, heads, head_dim),
        (heads, window * window, window * window),
        (3, heads, head_dim),
        (heads,),
    )
    drawn = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
    drawn[3] = drawn[3].abs() + 0.5
    wide = reference.sum_dtype(dtype)
    return [x.to(d) for x, d in zip(drawn, (dtype, wide, dtype, wide), strict=True)]


def attend(
    inputs: list[Tensor], case: tuple[int, ...], cosine: bool = False, back_end: str | None = None
) -> Tensor:
    qkv, bias, pad, scale = inputs
    return window_attention(qkv, bias, pad, *case[-2:], scale, cosine, back_end)


def answers(
    inputs: list[Tensor],
    case: tuple[int, ...],
    cosine: bool = False,
    back_end: str | None = None,
    autocast: bool = False,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """The result, and the gradients of a weighted sum of it, on the CPU wherever it was computed.

    Uncompiled, as here, flex has no gradients.
    """
    inputs = [x.detach().to(device).requires_grad_(back_end != "flex") for x in inputs]
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        out = attend(inputs, case, cosine, back_end)
    if back_end == "flex":
        return {"out": out.cpu()}
    weight = torch.arange(out.numel()).cos().view(out.shape).bfloat16().to(out)
    grads = torch.autograd.grad(out, inputs, weight, materialize_grads=True)
    found = {"out": out.detach(), **dict(zip(ALL, grads, strict=True))}
    return {name: x.cpu() for name, x in found.items()}


def assert_same_bits(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert torch.equal(got[name], want[name]), name


def assert_as_accurate(
    got: dict[str, Tensor], plain: dict[str, Tensor], exact: dict[str, Tensor], times: float = 2
) -> None:
    """At most twice as far from float64 as plain torch in the same dtype, in the mean.

    One rounding of the largest number is free: where few are not 0 the mean is a matter of luck.
    """
    assert got.keys() == plain.keys() == exact.keys()
    for name, right in exact.items():
        assert got[name].dtype == plain[name].dtype, name
        ours, theirs = ((x[name].double() - right).square().mean().sqrt() for x in (got, plain))
        free = torch.finfo(got[name].dtype).eps * right.abs().max()
        assert ours <= times * theirs + free, f"{name}: {ours:.1e}, plain {theirs:.1e}"


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# --- What it means -------------------------------------------------------------------------------


@cache
def by_hand(case: tuple[int, ...], cosine: bool) -> Tensor:
    return scalar_loops.window_attention(*sample(case), *case[-2:], cosine)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_means_the_formula(case: tuple[int, ...], cosine: bool, back_end: str) -> None:
    out = attend(sample(case, finest(back_end)), case, cosine, back_end)
    torch.testing.assert_close(out, by_hand(case, cosine).to(out.dtype))


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("name", ["sdpa", "plain"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients(case: tuple[int, ...], name: str, cosine: bool) -> None:
    inputs = [x.requires_grad_() for x in sample(case)]
    torch.autograd.gradcheck(lambda *x: attend(x, case, cosine, name), inputs, fast_mode=True)


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("name", ["sdpa", "plain"])
def test_gradients_of_every_entry(name: str, cosine: bool) -> None:
    case = (1, 3, 2, 2, 1 + cosine, 2, 1)
    inputs = [x.requires_grad_() for x in sample(case)]
    torch.autograd.gradcheck(lambda *x: attend(x, case, cosine, name), inputs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_and_gradients_agree(
    case: tuple[int, ...], cosine: bool, back_end: str, device: str
) -> None:
    got = answers(sample(case, finest(back_end)), case, cosine, back_end, device=device)
    want = answers(sample(case), case, cosine, "plain")
    for name, ours in got.items():
        right = want[name].to(ours.dtype)
        torch.testing.assert_close(ours, right, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_reference_of_the_gradients(case: tuple[int, ...], cosine: bool) -> None:
    inputs = sample(case)
    want = answers(inputs, case, cosine, "plain")
    weight = torch.arange(want["out"].numel()).cos().view_as(want["out"]).bfloat16().double()
    back = reference.window_attention_backward(weight, *inputs, *case[-2:], cosine)
    for name, got in zip(ALL, back, strict=True):
        torch.testing.assert_close(got, want[name])


def test_cosine_of_vectors_of_no_length(back_end: str) -> None:
    inputs = sample(RAGGED, finest(back_end))
    inputs[0][0, 1, 2, :2], inputs[0][1, 3, 4, :2] = 0, 2e-13  # lengths are 1e-12 at least
    wide = [x.double() for x in inputs]
    got = answers(inputs, RAGGED, True, back_end)
    want = answers(wide, RAGGED, True, "plain")
    torch.testing.assert_close(got["out"], want["out"].to(got["out"].dtype))
    weight = torch.arange(want["out"].numel()).cos().view_as(want["out"]).bfloat16().double()
    back = reference.window_attention_backward(weight, *wide, *RAGGED[-2:], True)
    for ours in (got.get("qkv", back[0]), back[0]):
        torch.testing.assert_close(ours.double(), want["qkv"], rtol=1e-3, atol=1e-3)


def test_scale_is_the_same_as_number_and_tensor(back_end: str) -> None:
    qkv, bias, pad, _ = sample(RAGGED, finest(back_end))
    rest = {"back_end": back_end}
    usual = window_attention(qkv, bias, pad, 4, 2, **rest)
    number = window_attention(qkv, bias, pad, 4, 2, scale=6**-0.5, **rest)
    tensor = torch.full((3,), 6**-0.5, dtype=qkv.dtype)
    assert torch.equal(usual, number)
    assert torch.equal(usual, window_attention(qkv, bias, pad, 4, 2, scale=tensor, **rest))


# --- How exact it is -----------------------------------------------------------------------------


on_cuda_too = pytest.mark.parametrize(
    ("dtype", "device"),
    [
        (torch.float32, "cpu"),
        (torch.bfloat16, "cpu"),
        *(
            pytest.param(dtype, "cuda", marks=needs_cuda)
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        ),
    ],
)


@needs_kernels
@pytest.mark.parametrize("cosine", [False, True])
@on_cuda_too
@pytest.mark.parametrize("case", [*CASES.values(), *ODD_SIZES.values()], ids=[*CASES, *ODD_SIZES])
def test_kernel_is_as_accurate(
    case: tuple[int, ...], dtype: torch.dtype, device: str, cosine: bool
) -> None:
    cosine = cosine and case[4] > 1  # of a single number it leaves the sign, and no gradient
    got, plain, exact = ({name: [] for name in ("out", *ALL)} for _ in range(3))
    for seed in range(16):  # two heads have two scales: a few draws would compare luck
        inputs = sample(case, dtype, seed)
        for to, back_end in ((got, "kernel"), (plain, "plain"), (exact, "plain")):
            given = [x.double() for x in inputs] if to is exact else inputs
            where = "cpu" if to is exact else device
            for name, x in answers(given, case, cosine, back_end, device=where).items():
                to[name].append(x)
    assert_as_accurate(*({k: torch.stack(v) for k, v in x.items()} for x in (got, plain, exact)))


@pytest.mark.parametrize("name", ["sdpa", "plain"])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_close(dtype: torch.dtype, atol: float, shift: int, name: str) -> None:
    case = (2, 9, 17, 3, 8, 7, shift)
    inputs = sample(case, dtype)
    out = attend(inputs, case, back_end=name)
    assert out.dtype == dtype
    exact = attend([x.double() for x in inputs], case)
    torch.testing.assert_close(out.double(), exact, atol=atol, rtol=0.02)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_large_bias_is_not_rounded(
    shift: int, back_end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exact(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        """Stand in for the generated kernel, whose products and scores are in float32."""
        return flex_attention(q.float(), k.float(), v.float(), **rest)

    monkeypatch.setattr(window_gather, "_compiled_flex", lambda: exact)
    case = (2, 14, 19, 3, 32, 7, shift)
    qkv, bias, pad, _ = sample(case, torch.bfloat16)
    inputs = [qkv, bias * 3, pad, torch.full((3,), 32**-0.5)]
    right = attend([x.double() for x in inputs], case, back_end="plain")
    ours, plain = (
        (attend(inputs, case, back_end=name).double() - right).square().mean().sqrt()
        for name in (back_end, "plain")
    )
    assert ours <= 1.2 * plain


def test_huge_logits(back_end: str) -> None:
    inputs = sample(RAGGED, finest(back_end))
    inputs[0][:, :, :, :2] *= 1e6
    got = answers(inputs, RAGGED, back_end=back_end)
    want = answers([x.double() for x in inputs], RAGGED, back_end="plain")
    torch.testing.assert_close(got["out"], want["out"].to(got["out"].dtype))
    assert all(x.isfinite().all() for x in got.values())


def test_a_bias_may_forbid(back_end: str) -> None:
    inputs = sample(RAGGED, finest(back_end))
    inputs[1][1, 3:9, 9:] = -math.inf
    got = answers(inputs, RAGGED, back_end=back_end)
    want = scalar_loops.window_attention(*(x.double() for x in inputs), *RAGGED[-2:])
    torch.testing.assert_close(got["out"], want.to(got["out"].dtype))
    if "bias" in got:
        assert (got["bias"][1, 3:9, 9:] == 0).all()
    assert all(x.isfinite().all() for x in got.values())


# --- Who has an influence on whom ----------------------------------------------------------------


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_number_stays_in_its_window(number: float, back_end: str) -> None:
    case = CASES["whole windows, shifted"]
    clean = sample(case, finest(back_end))
    dirty = [x.clone() for x in clean]
    dirty[0][1, 2, 5] = number  # in the window of rows 1 to 3 and columns 4 to 6
    before, after = (answers(x, case, back_end=back_end) for x in (clean, dirty))
    for name in before.keys() & {"out", "qkv"}:
        assert not after[name][1, 1:4, 4:7].isfinite().any(), name
        for x in (before[name], after[name]):
            x[1, 1:4, 4:7] = 0
        assert torch.equal(before[name], after[name]), name


def test_masked_tokens_have_no_influence(back_end: str) -> None:
    case = CASES["whole windows, shifted"]
    one = sample(case, finest(back_end))
    other = [x.clone() for x in one]
    other[0][1, 0, 5] *= -1e4  # sits in the window of rows 4 and 5, seen from row 0 only
    before, after = (answers(x, case, back_end=back_end) for x in (one, other))
    for name in before.keys() & {"out", "qkv"}:
        changed = (before[name] != after[name]).flatten(3).any(-1).nonzero().tolist()
        assert changed == [[1, 0, 4], [1, 0, 5], [1, 0, 6]], name


# --- Which tensors it takes ----------------------------------------------------------------------


def test_takes_views(back_end: str) -> None:
    inputs = sample(RAGGED, finest(back_end))
    views = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs[:3]]
    assert not any(x.is_contiguous() for x in views)
    assert_same_bits(
        *(answers([*x, inputs[3]], RAGGED, back_end=back_end) for x in (inputs[:3], views))
    )


@pytest.mark.parametrize("name", NAMES)
def test_takes_a_view_of_a_gradient(name: str) -> None:
    inputs = [x.requires_grad_() for x in sample(RAGGED, finest(name))]
    view = torch.randn(18, 7, 5, 2, dtype=inputs[0].dtype).permute(3, 2, 1, 0)
    out = attend(inputs, RAGGED, back_end=name)
    found = [torch.autograd.grad(out, inputs, g, True) for g in (view, view.contiguous())]
    for ours, right in zip(*found, strict=True):
        torch.testing.assert_close(ours, right)


def test_no_image(back_end: str) -> None:
    qkv, *rest = sample(RAGGED, finest(back_end))
    got = answers([qkv[:0], *rest], RAGGED, back_end=back_end)
    assert got["out"].shape == (0, 5, 7, 18)
    assert_same_bits(
        {name: x for name, x in got.items() if name != "out"},
        dict(zip(list(got)[1:], map(torch.zeros_like, (qkv[:0], *rest)))),  # noqa: B905
    )


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cosine", [False, True])
def test_same_bits_for_any_number_of_threads(cosine: bool, dtype: torch.dtype, threads) -> None:
    case = (3, 19, 17, 5, 6, 4, 2)
    inputs = sample(case, dtype)
    threads(1)
    alone = answers(inputs, case, cosine, "kernel")
    for _ in range(3):
        threads(2)
        assert_same_bits(answers(inputs, case, cosine, "kernel"), alone)


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_goes_on_after_memory_ran_out() -> None:
    """What a call keeps for the next is small, then cannot become large, then is asked for."""
    program = (
        "import resource, torch\n"
        "from swin_dense.ops import window_attention\n"
        "torch.set_num_threads(1)\n"
        "def inputs(side, heads):\n"
        "    qkv, length = torch.arange(3.0 * heads * side**2) % 7, side**2\n"
        "    qkv = qkv.view(1, side, side, 3, heads, 1)\n"
        "    return qkv, torch.zeros(heads, length, length), torch.zeros(3, heads, 1), side, 0\n"
        "def call(some):\n"
        "    return window_attention(*some, back_end='kernel')\n"
        "small, large = inputs(3, 2), inputs(31, 16)\n"
        "before = call(small)\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "room = pages * resource.getpagesize() + (8 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    call(large)\n"
        "except (MemoryError, RuntimeError) as error:\n"
        "    print(type(error).__name__)\n"
        "print(torch.equal(call(small), before))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["True"], done.stdout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype, back_end: str) -> None:
    inputs = sample(RAGGED, dtype)
    without = answers(inputs, RAGGED, back_end=back_end)
    inside = answers(inputs, RAGGED, back_end=back_end, autocast=True)
    assert_same_bits(inside, without)
    assert inside["out"].dtype == dtype


# --- Tracing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration(dtype: torch.dtype, cosine: bool) -> None:
    inputs, rest = sample(RAGGED, dtype), (*RAGGED[-2:], cosine)
    leaves = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(torch.ops.swin_dense.window_attention, (*leaves, *rest))
    grad = torch.ones(2, 5, 7, 18, dtype=dtype)
    fixed = [x.detach() for x in inputs]
    torch.library.opcheck(
        torch.ops.swin_dense.window_attention_backward,
        (grad, *fixed, *rest),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("name", NAMES[:2])
def test_compiles_once_for_all_sizes(name: str) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(window_attention, backend=counter, fullgraph=True, dynamic=True)
    for height, width in ((5, 10), (9, 6), (13, 9)):
        inputs = sample((2, height, width, 3, 6, 4, 2), finest(name))
        leaves = [x.requires_grad_(name == "kernel") for x in inputs]  # else it takes long
        outs = [
            call(*leaves[:3], 4, 2, leaves[3], True, name) for call in (compiled, window_attention)
        ]
        torch.testing.assert_close(*outs)
        if name == "kernel":
            grads = [torch.autograd.grad(out.square().sum(), leaves) for out in outs]
            for ours, eager in zip(*grads, strict=True):
                torch.testing.assert_close(ours, eager)
    assert counter.frame_count == 1


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.bias = nn.Parameter(torch.randn(2, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        qkv, pad = self.qkv(x).unflatten(-1, (3, 2, 3)), self.qkv.bias.view(3, 2, 3)
        return window_attention(qkv, self.bias, pad, 4, 2)


@needs_kernels
def test_exports_for_all_sizes() -> None:
    tiny = Tiny()
    sides = {1: torch.export.Dim("height", min=2), 2: torch.export.Dim("width", min=2)}
    program = torch.export.export(tiny, (torch.randn(2, 9, 13, 6),), dynamic_shapes=(sides,))
    for height, width in ((9, 13), (5, 6), (18, 7)):
        x = torch.randn(2, height, width, 6)
        torch.testing.assert_close(program.module()(x), tiny(x))


# --- Which back end ------------------------------------------------------------------------------


def test_order_of_preference() -> None:
    assert [b.name for b in BACK_ENDS] == ["kernel", "triton", "sdpa", "flex", "plain"]
    assert choose(sample(RAGGED)[0], 4).name == "sdpa"  # no kernel computes in float64


@needs_kernels
def test_the_kernel_comes_first() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert choose(sample(RAGGED, dtype)[0], 4).name == "kernel"


@pytest.mark.parametrize("name", NAMES)
def test_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    noted = [
        dataclasses.replace(b, run=lambda qkv, *_, name=b.name: used.append(name))
        for b in BACK_ENDS
    ]
    monkeypatch.setattr(front, "BACK_ENDS", noted)
    attend(sample(RAGGED, torch.float32), RAGGED, back_end=name)
    assert used == [name]


@pytest.mark.parametrize(
    ("name", "shape", "window", "dtype", "text"),
    [
        ("triton", (1, 1, 1, 3, 1, 8), 4, torch.float32, "stand in for the compiled ones on cuda"),
        ("none", (1, 1, 1, 3, 1, 8), 4, torch.float32, "one of kernel, triton, sdpa, flex, plain;"),
        ("flex", (1, 1, 1, 3, 1, 8), 4, torch.float32, "gradients on cuda only, this is on cpu"),
        pytest.param(
            "kernel", (1, 1, 1, 3, 1, 8), 4, torch.float64, "computes in .*, not in torch.float64. "
            "Leave it out to have one chosen that can", marks=needs_kernels,
        ),
        pytest.param(
            "kernel", (1, 1, 1, 3, 1, 65), 4, torch.float32,
            "heads of at most 64 channels, these have 65. Leave it out", marks=needs_kernels,
        ),
        pytest.param(
            "kernel", (1, 1, 1, 3, 1, 8), 33, torch.float32,
            "windows of at most 32x32 tokens, not 33x33. Leave it out", marks=needs_kernels,
        ),
        pytest.param(
            "kernel", (1, 1, 1, 3, 1, 8), 4, torch.float16, r"not in torch\.float16",
            marks=needs_kernels,
        ),
    ],
)  # fmt: skip
def test_says_why_not(
    name: str, shape: tuple[int, ...], window: int, dtype: torch.dtype, text: str
) -> None:
    qkv = torch.zeros(shape, dtype=dtype)
    with pytest.raises(ValueError, match=text):
        choose(qkv, window, name)
    assert choose(qkv, window).why_not(qkv, window) is None


def test_flex_is_not_deterministic() -> None:
    on_cuda: Any = SimpleNamespace(
        shape=(1, 1, 1, 3, 1, 16), dtype=torch.float32, device=torch.device("cuda")
    )
    flex = next(b for b in BACK_ENDS if b.name == "flex")
    assert flex.why_not(on_cuda, 4) is None
    try:
        torch.use_deterministic_algorithms(True)
        assert "in no fixed order, and torch.use_det" in str(flex.why_not(on_cuda, 4))
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert flex.why_not(on_cuda, 4) is None
    finally:
        torch.use_deterministic_algorithms(False)


def test_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "loaded", dict)
    monkeypatch.setattr(extension, "MISSING", "not built; run this")
    qkv = sample(RAGGED, torch.float32)[0]
    with pytest.raises(ValueError, match="'kernel' cannot take this call: not built; run this"):
        choose(qkv, 4, "kernel")
    assert choose(qkv, 4).name == "sdpa"


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
        ({"scale": (1,)}, r"one for each head, shape \(3,\); it has shape \(1,\)\. Flatten"),
        ({"scale": (3, 1, 1)}, r"shape \(3,\); it has shape \(3, 1, 1\)\. Flatten"),
        ({"scale": math.nan}, r"scale is finite; got nan\. Pass head_dim"),
        ({"scale": -math.inf}, r"scale is finite; got -inf\. Pass head_dim"),
        ({"cosine": True}, r"scale is None\. Pass one for each head, shape \(3,\)"),
        ({"qkv": torch.zeros(2, 5, 7, 3, 3, 6).int()}, r"qkv holds .*torch\.int32\. Convert"),
        ({"qkv": torch.zeros(2, 5, 7, 3, 3, 6).to(torch.float8_e5m2)}, "it has torch.float8_e5m2"),
        ({"bias": torch.zeros(3, 16, 16).long()}, r"bias holds .*torch\.int64\. Convert"),
        ({"pad_qkv": torch.zeros(3, 3, 6).bool()}, r"pad_qkv holds .*torch\.bool\. Convert"),
        ({"scale": torch.ones(3).int()}, r"scale holds .*torch\.int32\. Convert"),
        ({"bias": torch.zeros(3, 16, 16, device="meta")}, "qkv is on cpu, bias on meta. Move"),
        ({"pad_qkv": torch.zeros(3, 3, 6, device="meta")}, "qkv is on cpu, pad_qkv on meta. Mo"),
        ({"scale": torch.ones(3, device="meta")}, "qkv is on cpu, scale on meta. Move"),
    ],
)
def test_errors_say_what_to_do(change: dict, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "choose", lambda *_: pytest.fail("asked for a back end"))
    qkv, bias, pad, _ = sample(RAGGED, torch.float32)
    arguments = {"qkv": qkv, "bias": bias, "pad_qkv": pad, "window": 4, "shift": 2}
    made = {k: torch.zeros(v) if isinstance(v, tuple) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=text):
        window_attention(**{**arguments, **made})
