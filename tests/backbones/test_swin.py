"""Swin against the authors' outputs, and against mmdet's Swin."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from contract import Contract
from networks import SHARED, SMALL, assert_gradients_close, gradients, small
from torch import Tensor

import swin_dense.openmmlab  # noqa: F401  so that mmdet imports without compiled ops
from swin_dense.backbones import Swin

pytestmark = pytest.mark.plain

GOLDEN = SHARED / "golden" / "v1_odd.safetensors"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- Is it the authors' Swin ---------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"no {GOLDEN}; set SWIN_DENSE_SHARED")
def test_golden_outputs_and_gradients() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    golden = safetensors.load_file(GOLDEN)
    model = Swin(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16)).eval()
    model.load_state_dict({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=1e-4, rtol=0)
    want = {k[2:]: v for k, v in golden.items() if k.startswith("g.")} | {"image": golden["gx"]}
    got = gradients(model, golden["x"])
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)


def to_mmdet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names and merging order -> theirs, which merge with nn.Unfold: channel before place."""
    names = {
        "patch_embed.proj": "patch_embed.projection",
        "layers.": "stages.",
        ".attn.": ".attn.w_msa.",
        ".mlp.fc1": ".ffn.layers.0.0",
        ".mlp.fc2": ".ffn.layers.1",
    }
    moved = {}
    for name, value in weights.items():
        if "downsample" in name:  # last axis (4 places, C) -> (C, 4 places), rows before columns
            value = value.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
            value = value.transpose(-2, -1).flatten(-2)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        moved[name] = value
    return moved


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [(65, 94, 5), (33, 130, 7), (9, 5, 7), (3 * 4, 4, 3), (4, 4, 7)],
    ids=["odd", "long", "smaller than a window", "thin", "one token"],
)
def test_same_as_mmdet(height: int, width: int, window: int) -> None:
    backbones = pytest.importorskip("mmdet.models.backbones.swin")
    ours = small(Swin, window_size=window).eval()
    theirs = backbones.SwinTransformer(
        embed_dims=SMALL["embed_dim"],
        depths=SMALL["depths"],
        num_heads=SMALL["num_heads"],
        window_size=window,
    )
    theirs.eval()  # returns None
    _, unexpected = theirs.load_state_dict(to_mmdet(ours.state_dict()), strict=False)
    assert not unexpected
    image = torch.randn(2, 3, height, width)
    for mine, yours in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-4, rtol=1e-5)
    assert_gradients_close(to_mmdet(gradients(ours, image)), gradients(theirs, image), rel=1e-3)


def test_loads_a_state_with_the_authors_index_buffers() -> None:
    model = small(Swin)
    name = "layers.0.blocks.0.attn.relative_position_index"
    state = {**model.state_dict(), name: torch.zeros(16, 16, dtype=torch.long)}
    before = model.get_buffer(name).clone()
    assert name not in model.state_dict()
    model.load_state_dict(state)
    assert torch.equal(model.get_buffer(name), before)
    assert name in state  # the caller's dictionary is the caller's


def test_loads_through_init_cfg(tmp_path: Path) -> None:
    saved = small(Swin)
    torch.save({"state_dict": saved.state_dict()}, tmp_path / "small.pth")
    cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "small.pth")}
    model = Swin(**SMALL, init_cfg=cfg)
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


def test_weights_are_drawn_as_the_authors_do() -> None:
    for name, p in Swin(ape=True).named_parameters():
        if "norm" in name:
            assert p.eq(1 if name.endswith("weight") else 0).all(), name
        elif "patch_embed" not in name:
            assert p.std().item() == pytest.approx(0 if name.endswith("bias") else 0.02, rel=0.1)


def test_names_what_is_not_decayed() -> None:
    words = Swin.no_weight_decay_keywords
    kept = [
        n for n, _ in small(Swin, ape=True).named_parameters() if not any(w in n for w in words)
    ]
    assert kept
    assert {n.rsplit(".", 2)[-2] for n in kept} == {"proj", "qkv", "fc1", "fc2", "reduction"}


# --- Sizes, registry, errors -------------------------------------------------------------------


class TestSwin(Contract):
    kind = Swin
    parameters: ClassVar = {"tiny": 27.5, "small": 48.8, "base": 86.7, "large": 195.0}


def test_sizes_may_be_changed() -> None:
    with torch.device("meta"):
        assert Swin("tiny", window_size=12).layers[0].blocks[0].attn.window == 12
        assert Swin(depths=(2, 2, 18, 2)).depths == Swin("small").depths


def test_name_clashes_with_nothing() -> None:
    pytest.importorskip("mmdet")
    pytest.importorskip("mmseg")
    from mmdet.registry import MODELS as MMDET
    from mmdet.utils import register_all_modules
    from mmengine.registry import MODELS as ROOT
    from mmseg.registry import MODELS as MMSEG

    from swin_dense.registry import MODELS

    register_all_modules(init_default_scope=False)
    MMSEG.import_from_location()
    theirs = set().union(*(registry.module_dict for registry in (ROOT, MMDET, MMSEG)))
    assert "SwinTransformer" in theirs
    assert {"Swin", "SwinV2"} <= set(MODELS.module_dict)
    assert not theirs & set(MODELS.module_dict)
