"""The kernels in Triton, run by its interpreter and compiled for cards that need not be there."""

import importlib.util
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from devices import needs_kernels
from torch import Tensor
from triton_interpreter import compile_ahead, pack, run, stand_in, triton_process, unpack

from swin_dense.ops import reference
from swin_dense.ops.triton import launch, ms_deform_attn, window_attention

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16
Call = Callable[..., Tensor | tuple[Tensor, ...]]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Call]:
    """Give call("file.function", *arguments), by Triton's interpreter."""
    with triton_process(TRITON_INTERPRET="1") as there:
        yield lambda name, *arguments: unpack(there(run, name, pack(arguments)))


def assert_as_accurate(
    got: dict[str, Tensor], plain: dict[str, Tensor], exact: dict[str, Tensor]
) -> None:
    """At most twice as far from float64 as plain torch in the same dtype, in the mean.

    Two roundings of the largest number are free, since where few are left to compare the mean is a
    matter of luck. That of the scale is one for a head, of many that cancel: 64 are.
    """
    assert got.keys() == plain.keys() == exact.keys()
    for name, right in exact.items():
        assert got[name].dtype == plain[name].dtype, name
        assert got[name].shape == right.shape, name
        assert got[name].isfinite().all(), name
        if right.numel() == 0:
            continue
        ours, theirs = ((x[name].double() - right).square().mean().sqrt() for x in (got, plain))
        largest = torch.finfo(got[name].dtype).eps * right.abs().max()
        free = largest * (64 if name == "scale" else 2)
        assert ours <= 2 * theirs + free, f"{name}: {ours:.1e}, plain {theirs:.1e}"


def assert_same_bits(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert torch.equal(got[name], want[name]), name


# --- Window attention ----------------------------------------------------------------------------

# (B, H, W, N, D, window, shift)
WINDOWS = {
    "window 1": (1, 1, 2, 2, 5, 1, 0),
    "window 2": (1, 3, 2, 2, 17, 2, 1),
    "window 3, shifted by more": (2, 3, 4, 1, 33, 3, 2),
    "window 4, ragged and shifted": (1, 5, 7, 2, 6, 4, 2),
    "window 5, wider than the map": (1, 7, 2, 1, 16, 5, 2),
    "window 6, whole": (1, 6, 12, 1, 40, 6, 0),
    "window 7, higher than the map": (1, 6, 8, 2, 32, 7, 3),
    "window 8": (1, 8, 9, 1, 64, 8, 5),
    "one token": (2, 1, 1, 1, 4, 7, 3),
    "lower than two windows": (1, 5, 3, 2, 6, 4, 2),
    "heads of 1, whole and shifted": (1, 6, 3, 2, 1, 3, 1),
}
RAGGED = WINDOWS["lower than two windows"]
GRADIENTS = ("qkv", "bias", "pad_qkv", "scale")


def window_sample(case: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """The gradient of the result, qkv, bias, pad_qkv and scale."""
    batch, height, width, heads, channels, window, _ = case
    random = torch.Generator().manual_seed(0)
    length = window * window
    shapes = {
        (batch, height, width, heads * channels): dtype,
        (batch, height, width, 3, heads, channels): dtype,
        (heads, length, length): FLOAT32,
        (3, heads, channels): dtype,
        (heads,): FLOAT32,
    }
    drawn = [torch.randn(s, generator=random).to(d) for s, d in shapes.items()]
    drawn[4] = drawn[4].abs() + 0.5
    return drawn


def attend(
    interpreted: Call, inputs: list[Tensor], case: tuple[int, ...], cosine: bool = False
) -> dict[str, Tensor]:
    rest = (*inputs[1:], *case[-2:], cosine)
    back = interpreted("window_attention.backward", inputs[0], *rest)
    out = interpreted("window_attention.forward", *rest)
    return {"out": out, **dict(zip(GRADIENTS, back, strict=True))}


def attend_plainly(
    inputs: list[Tensor], case: tuple[int, ...], cosine: bool = False
) -> dict[str, Tensor]:
    rest = (*inputs[1:], *case[-2:], cosine)
    back = reference.window_attention_backward(inputs[0], *rest)
    out = reference.window_attention(*rest)
    return {"out": out, **dict(zip(GRADIENTS, back, strict=True))}


def attend_exactly(
    inputs: list[Tensor], case: tuple[int, ...], cosine: bool = False
) -> dict[str, Tensor]:
    return attend_plainly([x.double() for x in inputs], case, cosine)


@pytest.mark.parametrize(("cosine", "dtype"), [(False, FLOAT32), (True, FLOAT16)])
@pytest.mark.parametrize("case", WINDOWS.values(), ids=WINDOWS)
def test_window_attention(interpreted, case, dtype, cosine) -> None:
    cosine = cosine and case[4] > 1  # of a single number it leaves the sign, and no gradient
    inputs = window_sample(case, dtype)
    got = attend(interpreted, inputs, case, cosine)
    assert_as_accurate(
        got, attend_plainly(inputs, case, cosine), attend_exactly(inputs, case, cosine)
    )


@pytest.mark.parametrize(("cosine", "dtype"), [(False, FLOAT16), (True, BFLOAT16)])
def test_window_attention_otherwise(interpreted, dtype, cosine) -> None:
    test_window_attention(interpreted, RAGGED, dtype, cosine)


def test_window_attention_has_the_same_bits_again_and_of_views(interpreted) -> None:
    inputs = window_sample(RAGGED, FLOAT32)
    turned = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    assert not any(x.is_contiguous() for x in turned[:4])
    found = [attend(interpreted, x, RAGGED) for x in (inputs, turned)]
    assert_same_bits(*found)


def test_window_attention_of_no_image(interpreted) -> None:
    grad, qkv, *rest = window_sample(RAGGED, FLOAT16)
    got = attend(interpreted, [grad[:0], qkv[:0], *rest], RAGGED)
    want = attend_plainly([grad[:0], qkv[:0], *rest], RAGGED)
    assert [x.shape for x in got.values()] == [x.shape for x in want.values()]
    assert_same_bits(got, want)


@pytest.mark.parametrize(
    ("of_grad", "of_v", "of_q", "of_k", "of_scale"),
    [(11, 5, 0, 0, -8), (-10, -12, -12, 12, 0)],
    ids=["much", "little"],
)
def test_half_precision_neither_overflows_nor_vanishes(
    interpreted, of_grad, of_v, of_q, of_k, of_scale
) -> None:
    """The gradient of the logits goes up to 4e5, or to 1e-6; float16 ends at 65504 and at 6e-8.

    What comes of it is in between.
    """
    inputs = window_sample(RAGGED, FLOAT16)
    inputs[0] *= 2.0**of_grad
    for i, power in enumerate((of_q, of_k, of_v)):
        inputs[1][:, :, :, i] *= 2.0**power
        inputs[3][i] *= 2.0**power
    inputs[4] *= 2.0**of_scale
    exact = attend_exactly(inputs, RAGGED)
    assert_as_accurate(attend(interpreted, inputs, RAGGED), attend_plainly(inputs, RAGGED), exact)


def test_vectors_of_no_length(interpreted) -> None:
    inputs = window_sample(RAGGED, FLOAT32)
    inputs[1][0, 1, 2, :2], inputs[1][0, 3, 1, :2] = 0, 2e-13  # lengths are 1e-12 at least
    got, want = attend(interpreted, inputs, RAGGED, True), attend_exactly(inputs, RAGGED, True)
    for name, right in want.items():
        torch.testing.assert_close(got[name].double(), right, rtol=1e-5, atol=1e-5)


def test_a_bias_may_forbid_and_no_number_stays_in_its_window(interpreted) -> None:
    case = WINDOWS["heads of 1, whole and shifted"]  # of 3x3 tokens
    inputs = window_sample(case, FLOAT32)
    inputs[2][1, 5, :4] = -torch.inf
    got = attend(interpreted, inputs, case)
    assert_as_accurate(got, attend_plainly(inputs, case), attend_exactly(inputs, case))
    assert (got["bias"][1, 5, :4] == 0).all()
    inputs[1][0, 2, 1] = torch.nan  # in the window of rows 1 to 3, which goes around the border
    after = attend(interpreted, inputs, case)
    for name in ("out", "qkv"):
        assert after[name][0, 1:4, 1].isnan().all()
        elsewhere = [0, 4, 5]
        assert torch.equal(after[name][0, elsewhere], got[name][0, elsewhere])


# --- Multi-scale deformable attention ------------------------------------------------------------

SIZES = [(5, 7), (0, 4), (1, 1)]  # one map is empty, one a single position
PARTS = ("out", "value", "locations", "weights")


def deform_sample(
    dtype: torch.dtype = FLOAT32,
    channels: int = 6,
    sizes: list[tuple[int, int]] = SIZES,
    queries: int = 7,
    points: int = 2,
    images: int = 1,
) -> list[Tensor]:
    """The gradient of the result, value, sizes, locations and weights, for two heads.

    Points are inside and outside, far outside and on the centres of positions.
    """
    random = torch.Generator().manual_seed(0)
    keys = sum(h * w for h, w in sizes)
    shape = (images, queries, 2, len(sizes), points)
    grad = torch.randn(images, queries, 2 * channels, generator=random)
    value = torch.randn(images, keys, 2, channels, generator=random)
    locations = torch.rand(*shape, 2, generator=random) * 1.6 - 0.3
    weights = torch.randn(shape, generator=random)
    if locations.numel():
        locations[0, 0, 0, :, 0] = 0
        locations[0, 0, 1, :, 0] = 1
        locations[0, 1, 0, :, 0] = torch.tensor([-40.0, 1e30])
        locations[0, 1, 1, 0, 0] = torch.tensor([2.5 / 7, 1.5 / 5])
    shapes = torch.tensor(sizes, dtype=torch.long).view(-1, 2)
    return [grad.to(dtype), value.to(dtype), shapes, locations, weights]


def deform(interpreted: Call, inputs: list[Tensor]) -> dict[str, Tensor]:
    out = interpreted("ms_deform_attn.forward", *inputs[1:])
    return dict(zip(PARTS, (out, *interpreted("ms_deform_attn.backward", *inputs)), strict=True))


def deform_plainly(inputs: list[Tensor]) -> dict[str, Tensor]:
    back = reference.ms_deform_attn_backward(*inputs)
    return dict(zip(PARTS, (reference.ms_deform_attn(*inputs[1:]), *back), strict=True))


def deform_exactly(inputs: list[Tensor]) -> dict[str, Tensor]:
    return deform_plainly([x.double() if x.is_floating_point() else x for x in inputs])


@pytest.mark.parametrize(
    ("dtype", "channels", "sizes", "queries", "points", "images"),
    [
        (FLOAT32, 40, SIZES, 19, 1, 1),  # of 64 channels are taken as many, of queries 16 at a time
        (FLOAT32, 72, [(4, 3)], 5, 1, 1),  # two turns over the channels
        (FLOAT16, 1, SIZES[::2], 7, 2, 2),
        (BFLOAT16, 17, [(2, 3)], 7, 5, 1),  # two turns over the points
    ],
)
def test_ms_deform_attn(interpreted, dtype, channels, sizes, queries, points, images) -> None:
    inputs = deform_sample(dtype, channels, sizes, queries, points, images)
    assert_as_accurate(deform(interpreted, inputs), deform_plainly(inputs), deform_exactly(inputs))


def test_ms_deform_attn_has_the_same_bits_again_and_of_views(interpreted) -> None:
    inputs = deform_sample(sizes=[(2, 3), (1, 1)], points=1, images=2)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in inputs]
    assert not any(x.is_contiguous() for x in turned)
    assert_same_bits(deform(interpreted, turned), deform(interpreted, inputs))


def test_ms_deform_attn_of_nothing(interpreted) -> None:
    for sizes, queries, points in ([], 4, 2), ([(0, 3)], 4, 2), (SIZES, 0, 2), (SIZES, 4, 0):
        inputs = deform_sample(sizes=sizes, queries=queries, points=points)
        got = deform(interpreted, inputs)
        assert got["out"].shape == (1, queries, 12)
        for name, like in zip(PARTS[1:], (inputs[1], *inputs[3:]), strict=True):
            assert got[name].shape == like.shape
        assert not any(x.any() for x in got.values())
    none = [x if x is inputs[2] else x[:0] for x in inputs]
    assert deform(interpreted, none)["out"].shape == (0, 4, 12)


def test_a_location_that_is_no_number_spoils_its_query_and_no_other(interpreted) -> None:
    inputs = deform_sample(sizes=[(5, 7), (0, 4)])
    inputs[3][0, 5, 1, 0, 0] = -9  # outside
    clean = deform(interpreted, inputs)
    inputs[3][0, 5, 1, 0, 0] = torch.tensor([torch.inf, -torch.inf])  # outside, too
    inputs[3][0, 3, 1, 1, 0, 1] = torch.nan  # that map is empty
    inputs[3][0, 4, 1, 0, 1, 0] = torch.nan
    got = deform(interpreted, inputs)
    for found in (got, clean):
        spot = {
            "out": found["out"].unflatten(-1, (2, 6))[0, 4, 1],
            "locations": found["locations"][0, 4, 1, 0, 1],
            "weights": found["weights"][0, 4, 1, 0, 1],
        }
        for name, there in spot.items():
            assert there.isnan().all() == (found is got), name
            there.zero_()
    for name in spot:
        assert torch.equal(got[name], clean[name]), name


@pytest.mark.parametrize("sizes", [[(5, 7), (3, 2)], [(-5, -7), (1, 1)], [(2**40, 2**40), (1, 1)]])
def test_sizes_that_do_not_add_up_make_all_nan(interpreted, sizes) -> None:
    inputs = deform_sample(channels=1, sizes=[(5, 7), (1, 1)], queries=3, points=1)
    inputs[2] = torch.tensor(sizes)
    got = deform(interpreted, inputs)
    assert all(x.isnan().all() for x in got.values())


# --- On a card -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Iterator[Call]:
    cache = str(tmp_path_factory.mktemp("triton"))
    with triton_process(TRITON_INTERPRET="0", TRITON_CACHE_DIR=cache) as there:
        yield lambda *arguments: there(compile_ahead, *arguments)


@pytest.mark.parametrize("which", [0, 1], ids=["forward", "backward"])
@pytest.mark.parametrize("file", [window_attention, ms_deform_attn])
def test_compiles(compiled, file, which) -> None:
    if file is window_attention:
        fixed = file._fixed(2, 1, 16, True, BFLOAT16)
    else:
        fixed = file._fixed(32) | ({} if which else {"UNROLLED": 1})
    assert compiled(file.__name__.split(".")[-1], which, "bf16", 80, fixed)


@pytest.mark.parametrize("module", [launch, ms_deform_attn, window_attention])
def test_imports_triton_when_a_kernel_is_needed(module, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # to import it would be an error
    spec = importlib.util.spec_from_file_location("anew", module.__file__)
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    with pytest.raises(ImportError):
        anew.load({}, (), ()) if module is launch else anew._kernels()


@pytest.fixture
def on_a_card(monkeypatch) -> None:
    """Make believe: Triton and a C compiler are there, and a card that is new enough."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(launch, "_is_installed", lambda: True)
    monkeypatch.setattr(launch, "_finds_c_compiler", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


class OnCuda:
    """As much of a tensor as why_not looks at."""

    def __init__(self, *shape: int, dtype: torch.dtype = BFLOAT16) -> None:
        self.shape, self.dtype, self.device = shape, dtype, torch.device("cuda", 1)


QKV = (2, 5, 7, 3, 4, 64)


@pytest.mark.usefixtures("on_a_card")
def test_takes_what_fits(monkeypatch) -> None:
    for dtype in (FLOAT32, FLOAT16, BFLOAT16):
        assert window_attention.why_not(OnCuda(*QKV, dtype=dtype), 8) is None
        assert ms_deform_attn.why_not(OnCuda(2, 9, 5, 129, dtype=dtype)) is None
    on_cpu = torch.empty(2, 9, 5, 6)
    assert ms_deform_attn.why_not(on_cpu) == "the Triton kernels run on cuda only, this is on cpu"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ms_deform_attn.why_not(on_cpu) is None


@pytest.mark.usefixtures("on_a_card")
def test_says_why_not(monkeypatch) -> None:
    def reasons(window: int = 8, channels: int = 64, dtype: torch.dtype = BFLOAT16) -> list[str]:
        qkv = OnCuda(*QKV[:-1], channels, dtype=dtype)
        return [window_attention.why_not(qkv, window), ms_deform_attn.why_not(qkv)]

    assert reasons(9) == ["the Triton kernels hold windows of at most 8x8 tokens, not 9x9", None]
    assert reasons(8, 65) == [
        "the Triton kernels hold heads of at most 64 channels, these have 65",
        None,
    ]
    said = "the Triton kernels compute in float32, float16 and bfloat16, not in torch.float64"
    assert reasons(dtype=torch.float64) == [said] * 2
    monkeypatch.setattr(launch, "_finds_c_compiler", lambda: False)
    said = "Triton builds what launches its kernels with a C compiler, and none is on the path"
    assert reasons() == [said] * 2
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    said = "Triton compiles for cards of capability 8.0 and later, this has 7.5"
    assert reasons() == [said] * 2
    monkeypatch.setattr(launch, "_is_installed", lambda: False)
    assert reasons() == ["triton is not installed"] * 2


def test_is_looked_for_where_packages_are(monkeypatch, tmp_path) -> None:
    """A folder of that name beside the program, as ours is, is not Triton."""
    (tmp_path / "triton").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    assert not launch._is_installed.__wrapped__()
    (tmp_path / "triton" / "__init__.py").touch()
    assert launch._is_installed.__wrapped__()


# --- In the place of a kernel --------------------------------------------------------------------


@needs_kernels
def test_what_is_right_stands_in_for_a_kernel() -> None:
    with triton_process(TRITON_INTERPRET="1") as there:
        for family in ("ms_deform_attn", "window_attention"):
            told = there(stand_in, family)
            assert told["said"] == [f"{family} is wrong. Meanwhile Triton computes it."]
            assert told["called"] == 1
            assert told["apart"] < 1e-5
    assert told["chosen"] == ["triton", "sdpa"]  # too large a window goes another way
