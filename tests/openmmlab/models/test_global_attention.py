"""The block over the last map, against loops over single tokens and heads in float64."""

import math

import pytest
import torch
from networks import assert_gradients_close, randomised
from torch import Tensor, nn

from swin_dense.backbones import Swin
from swin_dense.errors import InputError
from swin_dense.openmmlab.models.global_attention import GlobalAttention
from swin_dense.registry import MODELS

CHANNELS = (5, 7, 12)  # of the maps; heads of 4 in the last
SIZES = ((9, 11), (5, 6), (3, 5))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def block(**changes) -> GlobalAttention:
    """Every norm and bias away from where it starts."""
    return randomised(GlobalAttention(**{"in_channels": CHANNELS, "head_channels": 4, **changes}))


def maps(sizes=SIZES, images: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(images, c, *s, dtype=dtype) for c, s in zip(CHANNELS, sizes, strict=False)]


# --- What it computes ----------------------------------------------------------------------------


def normed(token: list, weight: list, bias: list) -> list:
    mean = sum(token) / len(token)
    spread = math.sqrt(sum((v - mean) ** 2 for v in token) / len(token) + 1e-5)
    return [(v - mean) / spread * w + b for v, w, b in zip(token, weight, bias, strict=True)]


def linear(token: list, weight: list, bias: list) -> list:
    return [
        sum(w * v for w, v in zip(row, token, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def attended(tokens: list, heads: int) -> list:
    """[q, k, v] in one list for each token -> what each token takes from all of them."""
    channels = len(tokens[0]) // 3
    size = channels // heads
    found = []
    for mine in tokens:
        row: list = []
        for start in range(0, channels, size):
            places = range(start, start + size)
            logits = [
                sum(mine[i] * other[channels + i] for i in places) / math.sqrt(size)
                for other in tokens
            ]
            weights = [math.exp(x - max(logits)) for x in logits]
            row += [
                sum(w * t[2 * channels + i] for w, t in zip(weights, tokens, strict=True))
                / sum(weights)
                for i in places
            ]
        found.append(row)
    return found


def by_hand(model: GlobalAttention, image: Tensor) -> Tensor:
    """(C, H, W) -> (C, H, W), one token and one head at a time."""
    p = {name: value.double().tolist() for name, value in model.state_dict().items()}

    def part(name: str) -> tuple[list, list]:
        return p[f"{name}.weight"], p[f"{name}.bias"]

    tokens = [image[:, y, x].double().tolist() for y, x in torch.ones(image.shape[1:]).nonzero()]
    qkv = [linear(normed(t, *part("norm1")), *part("attn.qkv")) for t in tokens]
    found = attended(qkv, heads=image.shape[0] // 4)
    for n, token in enumerate(tokens):
        token = [a + b for a, b in zip(token, linear(found[n], *part("attn.proj")), strict=True)]
        hidden = linear(normed(token, *part("norm2")), *part("mlp.fc1"))
        hidden = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in hidden]
        added = linear(hidden, *part("mlp.fc2"))
        tokens[n] = [a + b for a, b in zip(token, added, strict=True)]
    return torch.tensor(tokens, dtype=torch.float64).T.reshape(image.shape)


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (1, 4)], ids=["odd", "one token", "one row"])
def test_means_the_formula(size) -> None:
    model = block().double().eval()
    given = maps((*SIZES[:2], size), dtype=torch.float64)
    last = model(given)[-1]
    assert last.shape == given[-1].shape
    for ours, image in zip(last, given[-1], strict=True):
        torch.testing.assert_close(ours, by_hand(model, image), atol=1e-12, rtol=1e-10)


def test_a_map_in_the_backbone_s_memory_format() -> None:
    """Backbones return channels_last; the answer is in it too, so that nothing is copied."""
    model = block().eval()
    given = maps()
    turned = [m.contiguous(memory_format=torch.channels_last) for m in given]
    last = model(turned)[-1]
    torch.testing.assert_close(last, model(given)[-1])
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_gradients() -> None:
    model = block().double().eval()
    last = torch.randn(1, CHANNELS[-1], 2, 3, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*model.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, state, ([*maps()[:2], x],))[-1]

    assert torch.autograd.gradcheck(run, (last, *parameters), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: model([*maps()[:2], x])[-1], last, fast_mode=True)


def test_the_same_gradients_as_of_torch_s_own_layer() -> None:
    """nn.TransformerEncoderLayer is the same block under other names."""
    model = block().double().eval()
    c = CHANNELS[-1]
    theirs = nn.TransformerEncoderLayer(
        c, c // 4, 4 * c, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    ).eval()
    names = {
        "attn.qkv.weight": "self_attn.in_proj_weight",
        "attn.qkv.bias": "self_attn.in_proj_bias",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1",
        "mlp.fc2": "linear2",
    }

    def renamed(found: dict[str, Tensor]) -> dict[str, Tensor]:
        for ours, other in names.items():
            found = {n.replace(ours, other): v for n, v in found.items()}
        return found

    theirs.load_state_dict(renamed(model.state_dict()))
    given = maps(dtype=torch.float64)
    ramp = torch.linspace(-1, 1, given[-1].numel()).view_as(given[-1])
    (model(given)[-1] * ramp).sum().backward()
    rows = theirs(given[-1].flatten(2).transpose(1, 2)).transpose(1, 2)
    (rows.view_as(ramp) * ramp).sum().backward()
    want = {n: p.grad for n, p in theirs.named_parameters()}
    got = renamed({n: p.grad for n, p in model.named_parameters()})
    assert_gradients_close(got, want, rel=1e-9)


def test_bfloat16_is_close() -> None:
    model = block().eval()
    given = maps()
    exact = model(given)[-1]
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(given)[-1]
    assert rough.dtype == torch.float32  # the residual stream is not rounded
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.02)


def test_the_other_maps_are_the_same_tensors() -> None:
    given = maps()
    found = block()(given)
    assert isinstance(found, tuple)
    assert [a is b for a, b in zip(found, given, strict=True)] == [True, True, False]


def test_a_dropped_block_returns_its_map() -> None:
    """Rarely is a branch kept at this rate; the branches of an image are dropped one by one."""
    model = block(drop_path_rate=1 - 1e-6).train()
    given = maps()
    torch.testing.assert_close(model(given)[-1], given[-1])
    assert not torch.equal(model.eval()(given)[-1], given[-1])


def test_starts_as_the_backbone_s_blocks_do() -> None:
    model = GlobalAttention([96])
    for name, p in model.named_parameters():
        if "norm" in name:
            assert p.eq(1 if name.endswith("weight") else 0).all(), name
        else:
            assert p.std().item() == pytest.approx(0 if name.endswith("bias") else 0.02, rel=0.1)


# --- Its place in a model ------------------------------------------------------------------------


def test_announces_the_channels_it_returns() -> None:
    model = block()
    assert model.out_channels == CHANNELS == tuple(m.shape[1] for m in model(maps()))


def test_takes_what_a_backbone_returns() -> None:
    backbone = Swin(embed_dim=8, depths=(1, 1), num_heads=(1, 2), out_indices=(0, 1))
    part = MODELS.build(
        dict(type="swin_dense.GlobalAttention", in_channels=backbone.out_channels, head_channels=8)
    )
    found = part(backbone(torch.randn(2, 3, 37, 50)))
    assert [tuple(m.shape) for m in found] == [(2, 8, 10, 13), (2, 16, 5, 7)]


@pytest.mark.parametrize("width", [1024, 1536], ids=["Swin-B", "Swin-L"])
def test_parameters_of_an_ordinary_block(width) -> None:
    """12 C^2 in four linear maps, 9 C biases, 4 C of two norms."""
    with torch.device("meta"):
        model = GlobalAttention([width])
    assert model.attn.heads * 32 == width
    assert sum(p.numel() for p in model.parameters()) == 12 * width**2 + 13 * width


def test_compiles_as_one_graph() -> None:
    model = block().eval()
    given = maps()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(given)[-1], model(given)[-1], atol=1e-5, rtol=1e-5)
    compiled(given)[-1].square().sum().backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    model(given)[-1].square().sum().backward()
    assert_gradients_close(got, {n: p.grad for n, p in model.named_parameters()}, rel=1e-4)


# --- What it says --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"in_channels": []}, r"one number for each map .* got \[\]\. Leave it out"),
        ({"in_channels": 12}, r"one number for each map .* got 12\. Leave it out"),
        ({"head_channels": 5}, r"divide the channels of the last map, 12; got 5\. 32 is"),
        ({"head_channels": 0}, r"got 0\. 32 is"),
        ({"drop_path_rate": 1.0}, r"from 0 to below 1; got 1\.0\. Give it that of the backbone"),
    ],
)
def test_wrong_arguments_say_what_to_do(changes, text) -> None:
    with pytest.raises(InputError, match=text):
        block(**changes)


def test_other_maps_than_announced() -> None:
    with pytest.raises(InputError, match=r"in_channels=\[5, 7, 12\], got \[5, 7\]\. Leave"):
        block()(maps()[:2])
