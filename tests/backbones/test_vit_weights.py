"""Files with the names that each project's attributes give: all loads, the rest is explained."""

from collections.abc import Iterable

import pytest
import torch
from networks import randomised
from torch import Tensor, nn

from swin_dense.backbones import ViT
from swin_dense.checkpoints import files, fitting
from swin_dense.checkpoints.layouts import convert

C, HIDDEN, BLOCKS, PLACES, TABLE = 24, 48, 4, 16, (52, 3)
SIZES = {"embed_dim": C, "depth": BLOCKS, "num_heads": 3, "mlp_ratio": 2.0, "img_size": 64}
SIZES |= {"pretrain_img_size": 64, "drop_path_rate": 0.0}


def of(tensors: dict[str, tuple[int, ...]], **modules: int | tuple[int, ...]) -> dict[str, Tensor]:
    """Tensors by name, and modules by name (dots as two underscores) that have weight and bias."""
    shapes = dict(tensors)
    for name, shape in modules.items():
        shape = (shape,) if isinstance(shape, int) else shape
        name = name.replace("__", ".")
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def under(front: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {front + name: tensor for name, tensor in state.items()}


def blocks(front: str = "blocks", mlp: Iterable[str] = ("fc1", "fc2"), **more) -> dict[str, Tensor]:
    """What timm's blocks have, and their copies; `more` tensors of each."""
    first, second = (f"mlp__{name}" for name in mlp)
    linear = {"attn__proj": (C, C), first: (HIDDEN, C), second: (C, HIDDEN)}
    tensors = {name.replace("__", "."): shape for name, shape in more.items()}
    state = {}
    for number in range(BLOCKS):
        state |= under(f"{front}.{number}.", of(tensors, norm1=C, norm2=C, **linear))
    return state


QKV = {"attn__qkv__weight": (3 * C, C), "attn__qkv__bias": (3 * C,)}
BEIT = {"attn__qkv__weight": (3 * C, C), "attn__q_bias": (C,), "attn__v_bias": (C,)}
BEIT |= {"gamma_1": (C,), "gamma_2": (C,)}
TABLES = {"attn__relative_position_bias_table": TABLE, "attn__relative_position_index": (17, 17)}
DECOMPOSED = {"attn__rel_pos_h": (7, 8), "attn__rel_pos_w": (7, 8)}
PATCHES = {"patch_embed__proj": (C, 3, 16, 16)}
TOKEN, POSITIONS = {"cls_token": (1, 1, C)}, {"pos_embed": (1, 1 + PLACES, C)}


def mae(**more) -> dict[str, Tensor]:
    tensors = {**TOKEN, **POSITIONS, "mask_token": (1, 1, 12), "decoder_pos_embed": (1, 17, 12)}
    decoder = {"decoder_embed": (12, C), "decoder_norm": 12, "decoder_pred": (768, 12)}
    decoder |= {"decoder_blocks__0__norm1": 12, "decoder_blocks__0__attn__qkv": (36, 12)}
    return of(tensors, norm=C, **PATCHES, **decoder, **more) | blocks(**QKV)


def beit(tables: bool, tensors: dict | None = None, **more) -> dict[str, Tensor]:
    state = of({**TOKEN, **(tensors or {})}, **PATCHES, **more)
    return state | blocks(**BEIT, **(TABLES if tables else {}))


def beit_pretraining(**more) -> dict[str, Tensor]:
    tensors = {"mask_token": (1, 1, C), "rel_pos_bias.relative_position_bias_table": TABLE}
    tensors["rel_pos_bias.relative_position_index"] = (17, 17)
    return beit(False, tensors, norm=C, lm_head=(32, C), **more)


def supmae() -> dict[str, Tensor]:
    state = mae(cls_head__0=(32, C), cls_head__1=32, cls_head__3=(10, 32))
    return state | of({"cls_head.1.running_mean": (32,)})


def ibot() -> dict[str, Tensor]:
    tensors = {**TOKEN, **POSITIONS, "masked_embed": (1, C)}
    tensors |= {"head.last_layer.weight_g": (8, 1), "head.last_layer.weight_v": (8, 32)}
    return of(tensors, norm=C, head__mlp__0=(32, C), **PATCHES) | blocks(**QKV)


def dinov2(registers: int) -> dict[str, Tensor]:
    tensors = {**TOKEN, **POSITIONS, "mask_token": (1, C)}
    tensors |= {"register_tokens": (1, registers, C)} if registers else {}
    scales = {"ls1__gamma": (C,), "ls2__gamma": (C,)}
    return of(tensors, norm=C, **PATCHES) | blocks(**QKV, **scales)


def vitdet() -> dict[str, Tensor]:
    net = of(POSITIONS, **PATCHES) | blocks(**QKV, **DECOMPOSED)
    pyramid = of({}, simfp_2__0=(12, C, 2, 2), simfp_2__4__norm=12, simfp_5__1__norm=12)
    heads = {"proposal_generator__rpn_head__conv": (8, 12, 3, 3)}
    heads |= {"roi_heads__box_head__0__fc1": (8, 12)}
    return under("backbone.", under("net.", net) | pyramid) | of({}, **heads)


def sam(mlp: Iterable[str] = ("lin1", "lin2")) -> dict[str, Tensor]:
    state = of({"pos_embed": (1, 4, 4, C), "neck.0.weight": (8, C, 1, 1)}, neck__1=8, **PATCHES)
    return state | blocks(mlp=mlp, **QKV, **DECOMPOSED)


def whole_sam() -> dict[str, Tensor]:
    rest = of(
        {"pixel_mean": (3, 1, 1), "pixel_std": (3, 1, 1), "mask_decoder.iou_token.weight": (1, 8)}
    )
    return (
        under("image_encoder.", sam()) | rest | of({"prompt_encoder.no_mask_embed.weight": (1, 8)})
    )


OF_BEIT = {"class_token": True, "relative_positions": "table", "absolute_positions": False}
OF_BEIT |= {"layer_scale_init_value": 0.1}
OF_DETECTION = {"relative_positions": "decomposed"}
OF_DINO = {"class_token": True, "output_norm": True, "layer_scale_init_value": 1.0}
OF_MAE = {"class_token": True, "output_norm": True}
SOURCES = {  # project -> what lies in its file, the model it is for
    "MAE, pre-training": (mae, OF_MAE),
    "MAE, fine-tuned": (
        lambda: of({**TOKEN, **POSITIONS}, fc_norm=C, head=(10, C), **PATCHES) | blocks(**QKV),
        {"class_token": True},
    ),
    "SupMAE": (supmae, OF_MAE),
    "TinyMIM": (
        lambda: of({**TOKEN, **POSITIONS}, norm=C, **PATCHES) | blocks(**QKV),
        OF_MAE,
    ),
    "iBOT": (ibot, OF_MAE),
    "iBOT, teacher": (lambda: under("backbone.", ibot()), OF_MAE),
    "DINOv2": (lambda: dinov2(0), OF_DINO),
    "DINOv2 with registers": (lambda: dinov2(4), OF_DINO | {"register_tokens": 4}),
    "BEiT": (lambda: beit(True, fc_norm=C, head=(10, C)), OF_BEIT),
    "BEiT in its authors' segmentor": (
        lambda: (
            under("backbone.", beit(True, fpn1__0=(C, C, 2, 2), fpn1__1=C, fpn2__0=(C, C, 2, 2)))
            | of({}, decode_head__conv_seg=(10, C, 1, 1))
        ),
        OF_BEIT,
    ),
    "BEiT, pre-training": (beit_pretraining, OF_BEIT | {"output_norm": True}),
    "BEiT v2, pre-training": (
        lambda: beit_pretraining(cls_pt_layers__0__norm1=C, cls_pt_norm=C, cls_pt_lm_head=(32, C)),
        OF_BEIT | {"output_norm": True},
    ),
    "ViTDet": (vitdet, OF_DETECTION),
    "SAM": (whole_sam, OF_DETECTION),
    "timm's SAM": (lambda: sam(("fc1", "fc2")), OF_DETECTION),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_loads_whole(source, tmp_path) -> None:
    make, changes = SOURCES[source]
    torch.manual_seed(0)
    state = make()
    torch.save({"model": state}, tmp_path / "file.pth")
    model = ViT(**SIZES, **changes)
    shapes = model.state_dict()
    if "segmentor" in source:
        shapes = under("backbone.", shapes) | {
            "decode_head.conv_seg.weight": torch.zeros(10, C, 1, 1)
        }
        shapes["decode_head.conv_seg.bias"] = torch.zeros(10)
    loaded, account = fitting.fit(shapes, files.read(tmp_path / "file.pth"))
    assert loaded.keys() == shapes.keys(), account.random
    assert not account.resized
    found = convert(state)  # every name has a place or a reason; a norm too many is for other maps
    assert (found.architecture, found.whole) == ("ViT", "segmentor" in source)
    more = found.state.keys() - shapes.keys()
    assert {name.rpartition(".")[0] for name in more} <= {"norm", "cls_token", ""}, more


@pytest.mark.parametrize("front", ["", "backbone."])
def test_patches_of_another_size_are_resized(front, tmp_path) -> None:
    """MAE's ViT-H has patches of 14 pixels, its detectors of 16; a ramp stays nearly one."""
    state = mae()
    ramp = torch.arange(14.0).expand(C, 3, 14, 14)
    state["patch_embed.proj.weight"] = ramp
    torch.save({"model": state}, tmp_path / "mae.pth")
    model = ViT(**SIZES, **OF_MAE).state_dict()
    loaded, account = fitting.fit(under(front, model), files.read(tmp_path / "mae.pth"))
    assert [r.how for r in account.resized] == ["patches 14x14 -> 16x16 pixels, bicubic"]
    found = loaded[f"{front}patch_embed.proj.weight"]
    middle = (torch.arange(16.0) + 0.5) * 14 / 16 - 0.5
    torch.testing.assert_close(found[3, 1, 5, 3:13], middle[3:13], atol=0.06, rtol=0)


def attention(state: dict[str, Tensor], block: int) -> Tensor:
    return state[f"blocks.{block}.attn.relative_position_bias_table"]


def test_a_shared_table_is_that_of_every_block() -> None:
    given = beit_pretraining()
    found = convert(given).state
    for block in range(BLOCKS):
        want = given["rel_pos_bias.relative_position_bias_table"]
        assert torch.equal(attention(found, block), want)


@pytest.mark.parametrize("shared", [False, True])
def test_same_as_transformers_beit(shared) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BeitConfig(
        hidden_size=C,
        num_hidden_layers=BLOCKS,
        num_attention_heads=3,
        intermediate_size=HIDDEN,
        image_size=64,
        use_relative_position_bias=not shared,
        use_shared_relative_position_bias=shared,
        layer_norm_eps=1e-6,
        use_mask_token=True,
    )
    theirs = randomised(transformers.BeitModel(config)).eval()
    ours = ViT(**SIZES, **OF_BEIT, out_blocks=range(BLOCKS)).eval()
    compare(theirs, ours, lambda x: theirs(x, output_hidden_states=True).hidden_states[1:])


@pytest.mark.parametrize("name", ["BEiT", "MAE"])
def test_same_as_openmmlab_s(name) -> None:
    backbones = pytest.importorskip("mmseg.models.backbones")
    changes = {"init_values": 0.1} if name == "MAE" else {}
    theirs = getattr(backbones, name)(
        img_size=64, embed_dims=C, num_layers=BLOCKS, num_heads=3, mlp_ratio=2, **changes,
        out_indices=tuple(range(BLOCKS)), norm_cfg=dict(type="LN", eps=1e-6),
    )  # fmt: skip
    theirs.eval()
    changes = OF_BEIT | {"absolute_positions": name == "MAE"}
    ours = ViT(**SIZES, **changes, out_blocks=range(BLOCKS)).eval()
    compare(randomised(theirs), ours, lambda x: [m.flatten(2).mT for m in theirs(x)])


def compare(theirs: nn.Module, ours: ViT, maps) -> None:
    ours.load_state_dict(convert(theirs.state_dict()).state)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(image), maps(image), strict=True):
            torch.testing.assert_close(a.flatten(2).mT, b[:, -PLACES:], atol=1e-4, rtol=1e-4)
