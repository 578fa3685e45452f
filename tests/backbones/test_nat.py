"""NAT, DiNAT and DiNAT_s against the authors' outputs."""

from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, assert_gradients_close, gradients
from safetensors.torch import load_file

from swin_dense.backbones import NAT, DiNAT, DiNAT_s

GOLDEN = SHARED / "golden"


class TestNAT(Contract):
    kind = NAT
    # Of the authors' README, with a classifier of 1000 classes; they round to millions.
    parameters: ClassVar = dict(mini=20, tiny=28, small=51, base=90)
    classes = 1000
    agree = 0.015


class TestDiNAT(Contract):
    kind = DiNAT
    parameters: ClassVar = dict(mini=20, tiny=28, small=51, base=90, large=200)
    classes = 1000
    agree = 0.015


class TestDiNATs(Contract):
    kind = DiNAT_s
    parameters: ClassVar = dict(tiny=28, small=50, base=88, large=197)
    classes = 1000
    agree = 0.015


MODELS = {
    "nat": lambda: NAT(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(2, 2, 4, 4), mlp_ratio=2.0),
    "dinat": lambda: DiNAT(
        embed_dim=8,
        depths=(2, 2, 2, 1),
        num_heads=(2, 2, 4, 4),
        mlp_ratio=2.0,
        kernel_size=3,
        dilations=((1, 4), (1, 3), (1, 2), (1,)),
        layer_scale=1e-5,
    ),
    "dinats": lambda: DiNAT_s(
        embed_dim=8,
        depths=(2, 2, 2, 1),
        num_heads=(2, 2, 4, 8),
        mlp_ratio=2.0,
        kernel_size=5,
        dilations=((1, 3), (1, 2), (2, 1), (1,)),
    ),
}
ROUNDING = {"nat": 3e-6, "dinat": 6e-6, "dinats": 5e-6}  # as stated beside the files


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
@pytest.mark.parametrize("name", MODELS)
def test_golden_outputs_and_gradients(name: str) -> None:
    golden = load_file(GOLDEN / f"{name}.safetensors")
    model = MODELS[name]().eval()
    model.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * ROUNDING[name], rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def test_layers_are_counted_by_blocks() -> None:
    with torch.device("meta"):
        model = NAT("mini")
    expected = {
        "patch_embed.proj.1.weight": 0,
        "levels.0.blocks.0.attn.rpb": 1,
        "levels.0.downsample.norm.bias": 3,
        "levels.1.blocks.0.norm1.weight": 4,
        "levels.3.blocks.4.mlp.fc2.bias": 18,
        "norm0.weight": 19,
    }
    assert model.depth == 18
    assert {name: model.depth_of(name) for name in expected} == expected


def test_dilations_begin_again() -> None:
    with torch.device("meta"):
        model = DiNAT("mini", dilations=((1, 28), (1, 7, 1, 14), (1, 3, 1, 5), (2,)))
    steps = [[block.attn.dilation for block in level.blocks] for level in model.levels]
    assert steps == [[1, 28, 1], [1, 7, 1, 14], [1, 3, 1, 5, 1, 3], [2] * 5]


@pytest.mark.parametrize("kind", [NAT, DiNAT_s])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"depths": (2, 2)}, r"depths \(2, 2\) and num_heads .*Give both"),
        ({"num_heads": (1, 2, 7, 8)}, r"level 2 has \d+ channels .* and 7 heads"),
        ({"kernel_size": 6}, r"odd number .* got kernel_size 6\. 7 is usual"),
        ({"dilations": ((1,), (1,), (0,), (1,))}, r"numbers from 1 .*\(0,\).* Give e\.g\. \(\(1,"),
        ({"dilations": ((1,), (1,), (1,))}, r"numbers from 1 for each level"),
        ({"dilations": ((1,), (1,) * 9, (1,), (1,))}, r"at most as many as it has blocks"),
    ],
)
def test_its_own_arguments_are_checked(kind: type, changes: dict, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{kind.__name__}: .*{text}"):
        kind("nano", **changes)
