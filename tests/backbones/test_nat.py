"""NAT, DiNAT and DiNAT_s against the authors' outputs."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, assert_gradients_close, gradients, randomised
from safetensors.torch import load_file

from swin_dense.backbones import NAT, DiNAT, DiNAT_s
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export, known

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


# --- Weights of others ---------------------------------------------------------------------------

KINDS = {"NAT": NAT, "DiNAT_s": DiNAT_s}
LAYOUTS = [name for name in known() if name.split()[1] in KINDS or " NAT" in name]


def model_and_state(layout: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Return a model, and what of it the layout holds: norms of all maps, or of the last one."""
    kind = KINDS["DiNAT_s" if "DiNAT_s" in layout else "NAT"]
    scaled = {"layer_scale": 0.3} if " NAT" in layout else {}
    model = randomised(kind("nano", **scaled))
    first = 0 if "backbone" in layout else 3
    state = {
        n: t
        for n, t in model.state_dict().items()
        if not n.startswith("norm") or int(n[4]) >= first
    }
    return model, state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_there_and_back(layout: str) -> None:
    _, state = model_and_state(layout)
    found = convert(export(state, layout))
    assert found.layout == layout
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_files(kind: str) -> None:
    """Classification: one norm and a head; a detector: the names of ours behind "backbone."."""
    model, state = model_and_state(f"official {kind} classification")
    theirs = {n.replace("norm3.", "norm.") if n[:5] == "norm3" else n: t for n, t in state.items()}
    head = {"head.weight": torch.ones(5, 128), "head.bias": torch.ones(5)}
    found = convert({**theirs, **head})
    assert found.dropped.keys() == head.keys()
    assert all(torch.equal(found.state[n], t) for n, t in state.items())
    rest = {"roi_head.bbox_head.0.fc_cls.weight": torch.ones(3, 3)}
    detector = convert({f"backbone.{n}": t for n, t in model.state_dict().items()} | rest)
    assert detector.whole
    assert len(detector.state) == len(model.state_dict()) + 1


@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_names_of_transformers(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward cannot run (it needs a natten that is no more); its names can be read."""
    theirs = pytest.importorskip("transformers.models.dinat.modeling_dinat")
    monkeypatch.setattr(theirs, "requires_backends", lambda *_: None)
    config = theirs.DinatConfig(
        embed_dim=16,
        depths=[1, 2, 2, 1],
        num_heads=[1, 2, 4, 8],
        layer_scale_init_value=scale,
        dilations=[[1, 1]] * 4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    for model in (theirs.DinatBackbone(config), theirs.DinatForImageClassification(config)):
        found = convert(randomised(model).state_dict())
        assert found.architecture == "NAT"
        assert set(found.dropped) <= {"classifier.weight", "classifier.bias"}
        ours = DiNAT("nano", layer_scale=scale)
        missing, unexpected = ours.load_state_dict(found.state, strict=False)
        if scale:  # both of a block in one tensor there
            name = "encoder.levels.1.layers.0.layer_scale_parameters"
            given = next(t for n, t in model.state_dict().items() if n.endswith(name))
            block = ours.levels[1].blocks[0]
            assert torch.equal(torch.stack([block.gamma1, block.gamma2]), given)
        assert not unexpected
        assert all(name.startswith("norm") for name in missing)


def test_bias_tables_fit_another_window(tmp_path: Path) -> None:
    torch.save(randomised(NAT("nano")).state_dict(), tmp_path / "w.pth")
    model = NAT("nano", kernel_size=11)
    fitted, account = fitting.fit(
        model.state_dict(), files.read(tmp_path / "w.pth"), part="backbone"
    )
    model.load_state_dict(fitted)
    assert len(account.resized) == 6
    assert account.resized[0].how == "bias table 7x7 -> 11x11 window, bicubic"
