"""The linear maps of a block with their surroundings, against the same written out in torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from devices import DEVICES, needs_cuda, needs_kernels
from test_window_attention import assert_as_accurate, assert_same_bits
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from swin_dense.ops import branches, extension
from swin_dense.ops.branches import Linear, Norm

pytestmark = pytest.mark.plain

Tensors = dict[str, Tensor]
SHAPE, C, K, EPS = (2, 3, 5), 7, 11, 1e-3
F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16


def ours_norm_linear(t: Tensors, factor: Tensor | None) -> Tensor:
    norm = Norm(t["scale"], t["offset"], EPS)
    return branches.norm_linear(t["x"], norm, Linear(t["weight1"], t.get("bias1")))


def ours_add_linear(t: Tensors, factor: Tensor | None) -> Tensor:
    return branches.add_linear(t["to"], t["x"], Linear(t["weight1"], t.get("bias1")), factor)


def ours_add_mlp(t: Tensors, factor: Tensor | None) -> Tensor:
    first, second = (Linear(t[f"weight{i}"], t.get(f"bias{i}")) for i in (1, 2))
    return branches.add_mlp(t["x"], Norm(t["scale"], t["offset"], EPS), first, second, factor)


def theirs_norm_linear(t: Tensors, factor: Tensor | None) -> Tensor:
    normed = F.layer_norm(t["x"], (C,), t["scale"], t["offset"], EPS)
    return F.linear(normed, t["weight1"], t.get("bias1"))


def theirs_add_linear(t: Tensors, factor: Tensor | None) -> Tensor:
    y = F.linear(t["x"], t["weight1"], t.get("bias1"))
    return t["to"] + (y if factor is None else y * factor)


def theirs_add_mlp(t: Tensors, factor: Tensor | None) -> Tensor:
    hidden = F.gelu(theirs_norm_linear(t, None))
    y = F.linear(hidden, t["weight2"], t.get("bias2"))
    return t["x"] + (y if factor is None else y * factor)


Branch = tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[str, ...]]
BRANCHES: dict[str, Branch] = {
    "norm_linear": (
        ours_norm_linear,
        theirs_norm_linear,
        ("x", "scale", "offset", "weight1", "bias1"),
    ),
    "add_linear": (ours_add_linear, theirs_add_linear, ("to", "x", "weight1", "bias1")),
    "add_mlp": (
        ours_add_mlp,
        theirs_add_mlp,
        ("x", "scale", "offset", "weight1", "bias1", "weight2", "bias2"),
    ),
}
every_branch = pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)
# dtype of tensors, whether under autocast to bfloat16
KINDS = {"float32": (F32, False), "autocast": (F32, True), "bfloat16": (BF16, False)}


@pytest.fixture(params=[8192, 32], ids=["one piece", "pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """32 bytes are 8 rows of float32 or 16 of bfloat16; 30 rows leave a ragged last piece."""
    monkeypatch.setattr(branches, "_PIECE", request.param)
    return request.param


@pytest.fixture(params=[pytest.param("kernels", marks=needs_kernels), "references"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "references":
        monkeypatch.setattr(extension, "loaded", dict)
    return request.param


@pytest.fixture(params=[False, True], ids=["products as maps", "products in float32"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bfloat16 maps; this processor has one of the two."""
    monkeypatch.setattr(branches.products, "in_float32", lambda: request.param)


def draw(
    names: tuple[str, ...], dtype: torch.dtype = F64, batch: int = SHAPE[0], seed: int = 0
) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "x": (batch, *SHAPE[1:], C),
        "to": (batch, *SHAPE[1:], K),
        "scale": (C,),
        "offset": (C,),
        "weight1": (K, C),
        "bias1": (K,),
        "weight2": (C, K),
        "bias2": (C,),
    }
    drawn = {n: torch.randn(s, generator=random, dtype=F64) for n, s in shapes.items()}
    return {n: drawn[n].to(dtype) for n in names}


def dropped(dtype: torch.dtype) -> Tensor:
    """The first image is left out, the second stands for both."""
    return torch.tensor([0.0, 2.0], dtype=dtype).view(2, 1, 1, 1)


def answers(
    call: Callable[..., Tensor],
    given: Tensors,
    factor: Tensor | None = None,
    autocast: bool = False,
    frozen: tuple[str, ...] = (),
    device: str = "cpu",
) -> Tensors:
    """The result, and the gradients of a weighted sum of it, brought to the CPU."""
    leaves = {n: x.detach().to(device).requires_grad_(n not in frozen) for n, x in given.items()}
    with torch.autocast(device, BF16, enabled=autocast):
        out = call(leaves, None if factor is None else factor.to(device))
    weight = torch.arange(out.numel()).cos().view(out.shape).bfloat16().to(out)
    asked = [n for n in leaves if n not in frozen]
    grads = torch.autograd.grad(out, [leaves[n] for n in asked], weight)
    found = {"out": out.detach(), **dict(zip(asked, grads, strict=True))}
    return {n: x.cpu() for n, x in found.items()}


def assert_close(got: Tensors, want: Tensors) -> None:
    assert got.keys() == want.keys()
    for name, right in want.items():
        torch.testing.assert_close(got[name], right, msg=lambda text, n=name: f"{n}: {text}")


def without_bias(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(n for n in names if not n.startswith("bias"))


# --- What they mean ------------------------------------------------------------------------------


@every_branch
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("missing", [(), ("bias1",), ("bias2",), ("bias1", "bias2")], ids=str)
@pytest.mark.parametrize("dropping", [True, False])
def test_means_the_steps(
    branch: Branch, missing: tuple[str, ...], dropping: bool, piece: int, device: str
) -> None:
    ours, theirs, names = branch
    given = draw(tuple(n for n in names if n not in missing))
    factor = dropped(F64) if dropping else None
    assert_close(answers(ours, given, factor, device=device), answers(theirs, given, factor))


@every_branch
def test_gradients_of_every_entry(branch: Branch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_PIECE", 32)  # 4 rows
    ours, _, names = branch
    given = draw(names)
    given = {n: x[:, :1] if x.dim() == 4 else x for n, x in given.items()}
    torch.autograd.gradcheck(
        lambda *x: ours(dict(zip(names, x, strict=True)), dropped(F64)),
        [x.detach().requires_grad_() for x in given.values()],
    )


@pytest.mark.usefixtures("products")
@every_branch
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dropping", [True, False])
@pytest.mark.parametrize(("dtype", "autocast"), KINDS.values(), ids=KINDS)
def test_as_accurate(
    branch: Branch, dtype: torch.dtype, autocast: bool, dropping: bool, biased: bool, piece, rows
) -> None:
    ours, theirs, names = branch
    got, plain, exact = [], [], []
    for seed in range(6):
        given = draw(names if biased else without_bias(names), dtype, seed=seed)
        factor = dropped(dtype) if dropping else None
        got.append(answers(ours, given, factor, autocast))
        plain.append(answers(theirs, given, factor, autocast))
        wide = {n: x.double() for n, x in given.items()}
        exact.append(answers(theirs, wide, None if factor is None else factor.double()))
    pooled = (
        {n: torch.stack([x[n] for x in many]) for n in many[0]} for many in (got, plain, exact)
    )
    assert_as_accurate(*pooled)


@every_branch
@pytest.mark.parametrize(("dtype", "autocast"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_cuda)])
def test_as_accurate_on(branch: Branch, dtype: torch.dtype, autocast: bool, device: str) -> None:
    ours, theirs, names = branch
    given, factor = draw(names, dtype, batch=2), dropped(dtype)
    exact = answers(theirs, {n: x.double() for n, x in given.items()}, factor.double())
    both = [answers(call, given, factor, autocast, device=device) for call in (ours, theirs)]
    assert_as_accurate(*both, exact, times=3)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize("rows_dtype", [F32, BF16])
def test_a_narrow_map_is_added_to_a_wide_one(rows_dtype: torch.dtype, piece, rows) -> None:
    """As under autocast: attention gives bfloat16, the residual stream is float32."""
    ours, theirs, names = BRANCHES["add_linear"]
    given = draw(names, F32)
    given["x"] = given["x"].to(rows_dtype)
    exact = answers(theirs, {n: x.double() for n, x in given.items()})
    both = [answers(call, given, autocast=True) for call in (ours, theirs)]
    assert both[0]["out"].dtype == F32
    assert_as_accurate(*both, exact)


@every_branch
def test_rows_of_any_number_of_axes(branch: Branch) -> None:
    ours, _, names = branch
    given = draw(names)
    flat = {n: x.flatten(0, 2) if x.dim() == 4 else x for n, x in given.items()}
    ends = torch.tensor([1.0] * 30, dtype=F64)[:, None]
    assert torch.equal(ours(given, None).flatten(0, 2), ours(flat, None))
    torch.testing.assert_close(ours(flat, ends), ours(flat, None))


# --- Which tensors they take ---------------------------------------------------------------------


@every_branch
def test_takes_views(branch: Branch, piece: int, rows: str) -> None:
    ours, _, names = branch
    given = draw(names, F32)
    views = {n: x.mT.contiguous().mT if x.dim() == 4 else x for n, x in given.items()}
    assert not views["x"].is_contiguous()
    assert_same_bits(answers(ours, views), answers(ours, given))

    leaves = [x.detach().requires_grad_() for x in given.values()]
    out = ours(dict(zip(names, leaves, strict=True)), None)
    view = torch.randn(out.shape[::-1]).permute(3, 2, 1, 0)
    found = [torch.autograd.grad(out, leaves, g, True) for g in (view, view.contiguous())]
    assert all(map(torch.equal, *found))


@every_branch
def test_no_image(branch: Branch, rows: str) -> None:
    ours, theirs, names = branch
    given = draw(names, F32, batch=0)
    assert_same_bits(answers(ours, given), answers(theirs, given))


@every_branch
def test_frozen_parameters(branch: Branch, rows: str) -> None:
    ours, _, names = branch
    given = draw(names, F32)
    everything = answers(ours, given)
    for frozen in (("x", "to"), ("scale", "weight1"), ("bias1", "bias2"), names[1:], names[:-1]):
        got = answers(ours, given, frozen=frozen)
        assert_same_bits(got, {n: everything[n] for n in got})


@every_branch
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(branch: Branch, context: Callable[[], Any], piece, rows) -> None:
    ours, _, names = branch
    given = draw(names, F32)
    want = answers(ours, given)["out"]
    with context():
        out = ours(given, None)
    assert torch.equal(out, want)
    assert not out.requires_grad


@every_branch
def test_inputs_are_left_alone(branch: Branch, piece: int, rows: str) -> None:
    ours, _, names = branch
    given = draw(names, F32)
    before = {n: x.clone() for n, x in given.items()}
    answers(ours, given, dropped(F32))
    assert_same_bits(given, before)


# --- What is kept, and what is made again ---------------------------------------------------------


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(("name", "widths"), [("norm_linear", [C]), ("add_mlp", [C, K]),
                                              ("add_linear", [C])])  # fmt: skip
@pytest.mark.parametrize("autocast", [False, True])
def test_keeps_little(name: str, widths: list[int], autocast: bool, rows: str) -> None:
    """Of what has a row for every token."""
    ours, _, names = BRANCHES[name]
    leaves = {n: x.requires_grad_() for n, x in draw(names, F32).items()}
    kept = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x),
        torch.autocast("cpu", BF16, enabled=autocast),
    ):
        ours(leaves, None)
    maps = [x for x in kept if x.numel() > K * C]
    assert sorted(x.shape[-1] for x in maps) == sorted(widths)
    given = leaves["x"].data_ptr()
    assert {x.dtype for x in maps if x.data_ptr() != given} <= {BF16 if autocast else F32}
    if name != "add_linear" or not autocast:  # there it is x in the dtype of the product
        assert leaves["x"].data_ptr() in {x.data_ptr() for x in maps}


@pytest.mark.usefixtures("products")
@every_branch
@pytest.mark.parametrize("autocast", [False, True])
def test_same_bits_under_checkpointing(branch: Branch, autocast: bool, piece, rows) -> None:
    ours, _, names = branch
    given = draw(names, F32)

    def again(t: Tensors, factor: Tensor | None) -> Tensor:
        return checkpoint(ours, t, factor, use_reentrant=False)

    want = answers(ours, given, autocast=autocast)
    assert_same_bits(answers(again, given, autocast=autocast), want)


@every_branch
def test_a_parameter_changed_too_early_is_an_error(branch: Branch, rows: str) -> None:
    ours, _, names = branch
    leaves = {n: x.requires_grad_() for n, x in draw(names, F32).items()}
    out = ours(leaves, None)
    with torch.no_grad():
        leaves["weight1"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@every_branch
def test_no_second_derivative(branch: Branch, rows: str) -> None:
    ours, _, names = branch
    leaves = {n: x.requires_grad_() for n, x in draw(names, F32).items()}
    out = ours(leaves, None).square().sum()
    (grad,) = torch.autograd.grad(out, leaves["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        grad.sum().backward()


# --- Where the steps are written out -------------------------------------------------------------


@pytest.fixture
def only_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_NormLinear", "_AddLinear", "_AddMlp"):
        monkeypatch.setattr(branches, name, None)


@every_branch
@pytest.mark.usefixtures("only_written_out")
def test_compiles_written_out(branch: Branch) -> None:
    ours, theirs, names = branch
    torch._dynamo.reset()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    given = draw(names)
    assert_close(answers(compiled, given, dropped(F64)), answers(theirs, given, dropped(F64)))


@every_branch
@pytest.mark.usefixtures("only_written_out")
def test_function_transforms(branch: Branch) -> None:
    ours, theirs, names = branch
    given = draw(names)
    got = torch.func.grad(lambda t: ours(t, dropped(F64)).square().sum())(given)
    leaves = {n: x.detach().requires_grad_() for n, x in given.items()}
    out = theirs(leaves, dropped(F64)).square().sum()
    want = torch.autograd.grad(out, list(leaves.values()))
    assert_close(got, dict(zip(names, want, strict=True)))


@every_branch
def test_runs_in_pieces_otherwise(branch: Branch, only_written_out: None) -> None:
    ours, _, names = branch
    with pytest.raises(AttributeError, match="'apply'"):
        ours(draw(names), None)
