"""The neck in float64 against its paper's formula, tap by tap and window by window."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.models.bifpn import BiFPN
from swin_dense.registry import MODELS

GROUPS = 3
WIDTH = 6
TAKEN = (5, 7)
SIZES = [(11, 9), (6, 5), (3, 3), (2, 2)]  # the last two are pooled


def neck(**options):
    init_default_scope("mmdet")
    norm = dict(type="GN", num_groups=GROUPS)
    arguments = dict(in_channels=TAKEN, out_channels=WIDTH, num_outs=4, norm_cfg=norm) | options
    return MODELS.build(dict(type="swin_dense.BiFPN", **arguments))


@pytest.fixture
def case():
    """A neck without a zero or a one among its numbers, and two images' maps."""
    torch.manual_seed(4)
    module = neck().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for name, parameter in module.named_parameters():
            if name.endswith(".weights"):  # of a fusion; some of them below 0
                parameter += 0.5
    maps = [torch.randn(2, c, *size).double() for c, size in zip(TAKEN, SIZES, strict=False)]
    return module, maps


def convolved(x, weight):
    """Zeros around; one product per tap."""
    side = weight.shape[-1]
    around = side // 2
    padded = np.pad(x, ((0, 0), (0, 0), (around, around), (around, around)))
    height, width = x.shape[2:]
    return sum(
        np.einsum("bcyx,oc->boyx", padded[:, :, i : i + height, j : j + width], weight[:, :, i, j])
        for i in range(side)
        for j in range(side)
    )


def normed(x, scale, shift):
    out = np.empty_like(x)
    for b in range(len(x)):
        for chosen in np.split(np.arange(WIDTH), GROUPS):
            group = x[b, chosen]
            out[b, chosen] = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
    return out * scale[:, None, None] + shift[:, None, None]


def pooled(x):
    height, width = x.shape[2:]
    out = np.empty((*x.shape[:2], -(-height // 2), -(-width // 2)))
    for i, j in np.ndindex(out.shape[2:]):
        rows = slice(max(2 * i - 1, 0), 2 * i + 2)
        out[:, :, i, j] = x[:, :, rows, max(2 * j - 1, 0) : 2 * j + 2].max((2, 3))
    return out


def enlarged(x, size):
    out = np.empty((*x.shape[:2], *size))
    for i, j in np.ndindex(size):
        out[:, :, i, j] = x[:, :, i // 2, j // 2]
    return out


def by_hand(module, maps):
    numbers = {name: p.detach().numpy() for name, p in module.named_parameters()}

    def finished(name, x):
        x = convolved(x, numbers[f"{name}.conv.weight"])
        return normed(x, numbers[f"{name}.gn.weight"], numbers[f"{name}.gn.bias"])

    def fused(name, *parts):
        factors = np.maximum(numbers[f"{name}.weights"], 0)
        mixed = sum(w * x for w, x in zip(factors, parts, strict=True)) / (factors.sum() + 1e-4)
        return finished(f"{name}.conv", mixed / (1 + np.exp(-mixed)))

    c3, c4 = (x.numpy() for x in maps)
    c5 = pooled(c4)
    levels = [c3, c4, c5, pooled(c5)]
    p3, p4, p5, p6 = (finished(f"laterals.{i}", x) for i, x in enumerate(levels))
    for repeat in ("repeats.0", "repeats.1"):
        t5 = fused(f"{repeat}.down.2", p5, enlarged(p6, SIZES[2]))
        t4 = fused(f"{repeat}.down.1", p4, enlarged(t5, SIZES[1]))
        o3 = fused(f"{repeat}.down.0", p3, enlarged(t4, SIZES[0]))
        o4 = fused(f"{repeat}.up.0", pooled(o3), t4, p4)
        o5 = fused(f"{repeat}.up.1", pooled(o4), t5, p5)
        o6 = fused(f"{repeat}.up.2", pooled(o5), p6)
        p3, p4, p5, p6 = o3, o4, o5, o6
    return p3, p4, p5, p6


def test_means_the_formula(case):
    module, maps = case
    assert min(p.min() for n, p in module.named_parameters() if n.endswith(".weights")) < 0
    found = module(maps)
    assert [tuple(x.shape[2:]) for x in found] == SIZES
    for level, expected in zip(found, by_hand(module, maps), strict=True):
        np.testing.assert_allclose(level.detach().numpy(), expected, atol=1e-9)


def test_parameters_of_the_swin_paper_s_detector():
    """Of 44.9 million in all: five 1x1 convolutions, sixteen of 3x3, and a number per input."""
    with torch.device("meta"):
        module = BiFPN([192, 384, 768])
    numbers = {name: p.numel() for name, p in module.named_parameters()}
    fusions = {n: count for n, count in numbers.items() if n.endswith(".weights")}
    assert sum(n for name, n in numbers.items() if name.startswith("laterals")) == 739_840
    assert (len(fusions), sum(fusions.values())) == (16, 38)
    assert sum(numbers.values()) == 739_840 + 9_445_376 + 38
    assert not [name for name in numbers if "conv.bias" in name]


def test_a_fresh_neck_is_xavier_s():
    module = neck()
    module.init_weights()
    weights = [m.weight for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(weights) == 4 + 2 * 6
    for weight in weights:
        taps = weight[0, 0].numel()
        bound = (6 / ((weight.shape[0] + weight.shape[1]) * taps)) ** 0.5
        assert 0.85 * bound < weight.abs().max() <= bound
    assert all((m.weights == 1).all() for m in module.modules() if hasattr(m, "weights"))


def test_a_fusion_that_weighs_nothing_is_finite(case):
    module, maps = case
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(".weights"):
                parameter.copy_(-parameter.abs())
    found = module(maps)
    sum(x.sum() for x in found).backward()
    assert all(x.isfinite().all() for x in found)
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_mixed_precision_is_close(case):
    module, maps = case
    module = module.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = module([x.float() for x in maps])
        exact = module.double()(maps)
    for level, expected in zip(found, exact, strict=True):
        assert (level - expected).abs().max() < 0.2 * expected.abs().max()


@pytest.mark.parametrize(("taken", "num_outs"), [((5, 7), 1), ((5,), 1)])
def test_too_few_levels(taken, num_outs):
    with pytest.raises(InputError, match=rf"num_outs=1 for {len(taken)} maps .* Raise num_outs"):
        neck(in_channels=taken, num_outs=num_outs)
