"""Plain ViTs against the authors' outputs (ViTDet, BEiT) and transformers' implementations."""

from typing import ClassVar

import pytest
import torch
from contract import SIZE, Contract
from networks import SHARED, assert_gradients_close, gradients, randomised, weighted_sum
from safetensors.torch import load_file
from torch.nn import functional as F

from swin_dense.backbones import ViT
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert, export, known

VITDET = SHARED / "golden" / "vitdet.safetensors"
BEIT = SHARED / "golden" / "beit.safetensors"
SMALL = {"embed_dim": 24, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0, "drop_path_rate": 0.0}
WINDOWS = {"window_size": 3, "relative_positions": "decomposed", "img_size": 96}
TABLES = {
    "relative_positions": "table",
    "class_token": True,
    "absolute_positions": False,
    "layer_scale_init_value": 0.1,
    "img_size": (64, 80),
}
REGISTERS = {"class_token": True, "register_tokens": 4, "layer_scale_init_value": 1.0}
REGISTERS |= {"output_norm": True, "patch_size": 14, "pretrain_img_size": 70}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class TestViT(Contract):
    kind = ViT
    # Of arXiv 2012.12877 (table 1) and 2111.06377, with a classifier of 1000 classes.
    parameters: ClassVar = dict(tiny=5.7, small=22.1, base=86.6, large=304.3, huge=632)
    classes = 1000
    agree = 0.01


class OfAKind:
    """What the contract asks where windows and tables could change the answer."""

    kind = ViT
    bfloat16 = Contract.bfloat16
    changes: ClassVar[dict] = {}

    def model(self, **changes):
        return randomised(ViT("nano", **{"drop_path_rate": 0.0, **self.changes, **changes}))

    @pytest.mark.parametrize("beyond", [(0, 0), (29, 51)])
    def test_maps(self, beyond):
        Contract.test_announces_what_it_returns(self, (0, 1, 2, 3), beyond)

    test_batch = Contract.test_an_image_does_not_depend_on_its_batch
    test_program = Contract.test_exports_for_every_size
    test_bfloat16 = Contract.test_bfloat16_autocast_is_close

    def test_gradients(self):
        Contract.test_every_parameter_that_trains_gets_a_gradient(self, {"with_cp": True})


class TestWindows(OfAKind):
    changes = WINDOWS


class TestTables(OfAKind):
    changes = TABLES


class TestRegisters(OfAKind):
    changes: ClassVar = {"class_token": True, "register_tokens": 2}


# The authors' outputs.


def pyramid_names(state):
    """detectron2's names of the pyramid -> ours."""
    for name, tensor in state.items():
        level, number, rest = name.removeprefix("p.simfp_").split(".", 2)
        first = (4, 1, 0, 1)[int(level) - 2]  # the 1x1 convolution among the layers there
        place = int(number)
        if place >= first:
            place = first + 2 * (place - first) + rest.startswith("norm.")
        yield f"levels.{int(level) - 2}.{place}.{rest.removeprefix('norm.')}", tensor


@pytest.mark.skipif(not VITDET.is_file(), reason=f"no {VITDET}; set SWIN_DENSE_SHARED")
def test_golden_vitdet() -> None:
    from swin_dense.openmmlab.models.simple_feature_pyramid import SimpleFeaturePyramid

    golden = load_file(VITDET)
    sizes = dict(embed_dim=16, depth=4, num_heads=2, mlp_ratio=2.0, drop_path_rate=0.0)
    positions = dict(relative_positions="decomposed", pretrain_img_size=48, img_size=64)
    vit = ViT(**sizes, **positions, window_size=3, out_indices=(3,)).eval()
    assert [bool(block.window) for block in vit.blocks] == [False] * 4
    vit = ViT(**sizes, **positions, window_size=3, global_blocks=(1, 3), out_indices=(3,)).eval()
    vit.load_state_dict({k[6:]: v for k, v in golden.items() if k.startswith("p.net.")})
    neck = SimpleFeaturePyramid([16], 12, num_outs=4)
    theirs = {k: v for k, v in golden.items() if k.startswith("p.simfp")}
    neck.load_state_dict(dict(pyramid_names(theirs)))
    model = torch.nn.Sequential(vit, neck)
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * 2e-5, rtol=0)
    got = gradients(model, golden["x"])
    want = {f"0.{k[6:]}": v for k, v in golden.items() if k.startswith("g.net.")}
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)
    assert_gradients_close({"x": got["image"]}, {"x": golden["gx"]}, rel=1e-3)


@pytest.mark.skipif(not BEIT.is_file(), reason=f"no {BEIT}; set SWIN_DENSE_SHARED")
def test_golden_beit() -> None:
    from mmseg.models.necks import Feature2Pyramid

    golden = load_file(BEIT)
    sizes = dict(embed_dim=16, depth=4, num_heads=2, mlp_ratio=2.0, drop_path_rate=0.0)
    vit = ViT(**sizes, **TABLES | {"img_size": (80, 64)}, out_blocks=(0, 1, 2, 3)).eval()
    found = convert({k[2:]: v for k, v in golden.items() if k.startswith("p.")})
    assert found.layout == "official BEiT"
    assert all(name.startswith("fpn") for name in found.dropped)
    vit.load_state_dict(found.state)
    neck = Feature2Pyramid(16, norm_cfg=dict(type="BN")).eval()
    for theirs, ours in (("fpn1", neck.upsample_4x), ("fpn2", neck.upsample_2x)):
        start = f"p.{theirs}."
        weights = {k[len(start) :]: v for k, v in golden.items() if k.startswith(start)}
        ours.load_state_dict(weights, strict=False)  # a counter of batches is not there
    model = torch.nn.Sequential(vit, neck)
    for index, ours in enumerate(model(golden["x"])):
        torch.testing.assert_close(ours, golden[f"out{index}"], atol=5 * 6e-6, rtol=0)
    got = gradients(model, golden["x"])
    want = {f"0.{k[2:]}": v for k, v in golden.items() if k.startswith("g.")}
    assert_gradients_close({k: got[k] for k in want}, want, rel=1e-3)
    assert_gradients_close({"x": got["image"]}, {"x": golden["gx"]}, rel=1e-3)


# Other implementations.


def same_as(theirs: torch.nn.Module, ours: ViT, size: tuple[int, int], indices=(3,)) -> None:
    found = convert(randomised(theirs).eval().state_dict())
    assert found.architecture == "ViT"
    ours.eval().load_state_dict(found.state)
    image = torch.randn(2, 3, *size, requires_grad=True)
    maps, mine = theirs(image).feature_maps, ours(image)
    for a, b in zip(mine, maps, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    a, b = (torch.autograd.grad(weighted_sum(m), image)[0] for m in (mine, maps))
    assert (a - b).abs().max() <= 1e-3 * b.abs().max()


@pytest.mark.parametrize("size", [(64, 64), (80, 112)])
def test_same_as_transformers_vitdet(size) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.VitDetConfig(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=3,
        mlp_ratio=2,
        image_size=64,
        pretrain_image_size=48,
        window_size=3,
        window_block_indices=[0, 2],
        use_relative_position_embeddings=True,
    )
    ours = ViT(
        **SMALL, **WINDOWS | {"img_size": 64}, pretrain_img_size=48, global_blocks=(1, 3),
        out_indices=(3,),
    )  # fmt: skip
    same_as(transformers.VitDetBackbone(config), ours, size)


@pytest.mark.parametrize("size", [(70, 70), (84, 98)])
def test_same_as_transformers_dinov2_with_registers(size) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=3,
        mlp_ratio=2,
        image_size=70,
        patch_size=14,
        num_register_tokens=4,
        out_indices=[1, 2, 3, 4],
    )
    ours = ViT(**SMALL, **REGISTERS)
    theirs = transformers.Dinov2WithRegistersBackbone(config)
    if size == (70, 70):
        same_as(theirs, ours, size)
        return
    # Theirs is made from the scale of sides, plus a tenth of a place; ours from the sides.
    found = convert(randomised(theirs).eval().state_dict())
    ours.eval().load_state_dict(found.state)
    assert [m.shape[2:] for m in ours(torch.randn(1, 3, *size))] == [(6, 7)] * 4


def test_attention_is_that_of_a_loop() -> None:
    """One global block of each kind at a size its tables are not for, by loops in float64."""
    for changes in (WINDOWS | {"window_size": 0}, TABLES):
        vit = randomised(ViT(**SMALL, **changes)).eval().double()
        attention, (height, width) = vit.blocks[0].attn, (3, 5)
        extra = int(vit.extra)
        x = torch.randn(1, extra + height * width, 24, dtype=torch.float64)
        got = attention(x, (height, width), extra)[0]
        q, k, v = attention.qkv(x)[0].view(-1, 3, 3, 8).permute(1, 2, 0, 3)
        places = [(y, x) for y in range(height) for x in range(width)]
        for head in range(3):
            for i in range(len(q[0])):
                logits = []
                for j in range(len(q[0])):
                    logit = q[head, i] @ k[head, j] / 8**0.5
                    logits.append(logit + term(attention, q[head, i], head, i, j, places, extra))
                weights = torch.stack(logits).softmax(0)
                want = sum(w * v[head, j] for j, w in enumerate(weights))
                torch.testing.assert_close(got[i, 8 * head : 8 * head + 8], want)


def term(attention, query, head, i, j, places, extra):
    """What the places of a query and a key add to their logit."""
    height, width = places[-1][0] + 1, places[-1][1] + 1
    if attention.positions == "decomposed":
        (y, x), (v, u) = places[i], places[j]
        tables = []
        for table, count in ((attention.rel_pos_h, height), (attention.rel_pos_w, width)):
            new = F.interpolate(table.T[None], size=2 * count - 1, mode="linear")[0].T
            tables.append(new)
        return query @ tables[0][y - v + height - 1] + query @ tables[1][x - u + width - 1]
    table, (rows, columns) = attention.relative_position_bias_table[:, head], attention.sides
    first = (2 * rows - 1) * (2 * columns - 1)
    if i < extra or j < extra:
        return table[first + (2 if i < extra and j < extra else 0 if i < extra else 1)]
    grid = table[:first].view(1, 1, 2 * rows - 1, 2 * columns - 1)
    grid = F.interpolate(grid, size=(2 * height - 1, 2 * width - 1), mode="bicubic")[0, 0]
    (y, x), (v, u) = places[i - extra], places[j - extra]
    return grid[y - v + height - 1, x - u + width - 1]


# Weights of others.


LAYOUTS = {
    "official ViT (MAE, ViTDet, iBOT)": {"relative_positions": "decomposed", "output_norm": True},
    "official BEiT": TABLES | {"img_size": 64},
    "official BEiT pre-training (v1, v2)": TABLES | {"img_size": 64, "output_norm": True},
    "OpenMMLab BEiT (mmseg, mmpretrain)": TABLES | {"img_size": 64},
    "OpenMMLab MAE (mmseg, mmpretrain)": TABLES | {"img_size": 64, "absolute_positions": True},
    "official DINOv2": REGISTERS,
    "official SAM image encoder": {"relative_positions": "decomposed"},
    "timm SAM image encoder": {"relative_positions": "decomposed"},
    "Hugging Face transformers ViT, ViTMAE": {"class_token": True},
    "Hugging Face transformers DINOv2": REGISTERS,
    "Hugging Face transformers DINOv2 (5.x)": REGISTERS,
    "Hugging Face transformers BEiT": TABLES | {"img_size": 64},
    "Hugging Face transformers VitDet": WINDOWS,
}


def test_every_layout_is_tried() -> None:
    words = ("ViT", "BEiT", "MAE", "DINOv2", "SAM", "VitDet")
    assert {n for n in known() if any(word in n for word in words)} == LAYOUTS.keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_there_and_back(layout: str) -> None:
    model = randomised(ViT(**SMALL, **LAYOUTS[layout]))
    state = model.state_dict()
    for name, tensor in state.items():
        if "BEiT" in layout and name.endswith("qkv.bias"):  # it has none of the keys, which
            tensor.chunk(3)[1].zero_()  # changes no softmax
        if "pre-training" in layout and name.endswith("table"):  # one for all blocks
            tensor.copy_(state["blocks.0.attn.relative_position_bias_table"])
    theirs = export(state, layout)
    found = convert(theirs)
    assert (found.layout, found.architecture) == (layout, "ViT")
    assert found.state.keys() == state.keys()
    for name, tensor in state.items():
        keep = found.state[name]
        if "SAM" in layout and name == "pos_embed":  # no class token
            keep, tensor = keep[:, 1:], tensor[:, 1:]
        assert torch.equal(keep, tensor), name


def test_a_pretraining_file_fits_another_size_and_says_so(tmp_path) -> None:
    state = ViT(**SMALL, class_token=True, output_norm=True, pretrain_img_size=96).state_dict()
    state |= {"mask_token": torch.zeros(1, 1, 24), "decoder_embed.weight": torch.zeros(3, 24)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    model = ViT(**SMALL, **WINDOWS, pretrain_img_size=224)
    loaded, account = fitting.fit(model.state_dict(), files.read(tmp_path / "mae.pth"))
    assert [r.name for r in account.resized] == ["pos_embed"]
    assert account.resized[0].how == "place vectors 6x6 -> 14x14 patches, bicubic"
    assert {n.rpartition(".")[2] for names in account.random.values() for n in names} == {
        "rel_pos_h",
        "rel_pos_w",
    }
    grid = state["pos_embed"][:, 1:].view(1, 6, 6, 24).permute(0, 3, 1, 2)
    want = F.interpolate(grid, size=(14, 14), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(loaded["pos_embed"][:, 1:], want)


@pytest.mark.parametrize(
    ("name", "old", "new", "how"),
    [
        ("rel_pos_h", (27, 8), (13, 8), "relative positions 27 -> 13 differences, linear"),
        ("relative_position_bias_table", (52, 3), (84, 3), "bias table 4x4 -> 5x5 patches, bicu"),
    ],
)
def test_relative_positions_of_another_image_are_resized(tmp_path, name, old, new, how) -> None:
    model = {f"blocks.0.attn.{name}": torch.zeros(new)}
    torch.save({f"blocks.0.attn.{name}": torch.randn(old)}, tmp_path / "a.pth")
    checkpoint = files.read(tmp_path / "a.pth")
    loaded, account = fitting.fit(model, checkpoint)
    assert account.resized[0].how.startswith(how)
    if name.endswith("table"):
        given = checkpoint.weights[f"blocks.0.attn.{name}"]
        assert torch.equal(loaded[f"blocks.0.attn.{name}"][-3:], given[-3:])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_heads": 5}, r"heads divide the channels; embed_dim is 48, num_heads 5"),
        ({"out_blocks": (0, 1, 2)}, r"four blocks from 0 to 3.*got \(0, 1, 2\)"),
        ({"window_size": 2, "global_blocks": (4,)}, r"from 0 to 3; got \(4,\)"),
        ({"relative_positions": "decomposd"}, r"one of none, decomposed, table; got 'decomposd'"),
        ({"window_size": -1}, r"0 \(no windows\) or more; got -1"),
        ({"window_size": 3, "class_token": True}, "are for places alone"),
        ({"relative_positions": "table", "register_tokens": 1}, "but no registers"),
    ],
)
def test_mistakes(changes, text) -> None:
    with pytest.raises(ValueError, match=f"^ViT: .*{text}"):
        ViT("nano", **changes)


def test_maps_of_an_odd_image() -> None:
    assert [m.shape[2:] for m in ViT("nano")(torch.randn(1, 3, *SIZE))] == [(3, 4)] * 4
