"""The fused branches are the modules called in turn, and touched modules are still called."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from swin_dense.backbones import Swin
from swin_dense.layers import residual

pytestmark = pytest.mark.plain

FACTOR = torch.tensor([0.0, 1.6])[:, None, None]


def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    made = {"norm": nn.LayerNorm(6), "linear": nn.Linear(6, 6), "mlp": residual.Mlp(6, 10)}
    for p in nn.ModuleDict(made).parameters():
        nn.init.normal_(p)
    return made


def norm_linear(x: Tensor, m: dict[str, nn.Module]) -> Tensor:
    return residual.norm_linear(x, m["norm"], m["linear"])


def add_linear(x: Tensor, m: dict[str, nn.Module]) -> Tensor:
    return residual.add_linear(x, x.flip(-1), m["linear"], FACTOR)


def add_mlp(x: Tensor, m: dict[str, nn.Module]) -> Tensor:
    return residual.add_mlp(x, m["norm"], m["mlp"], FACTOR)


WAYS: dict[Callable, Callable] = {
    norm_linear: lambda x, m: m["linear"](m["norm"](x)),
    add_linear: lambda x, m: x + FACTOR * m["linear"](x.flip(-1)),
    add_mlp: lambda x, m: x + FACTOR * m["mlp"](m["norm"](x)),
}


@pytest.mark.parametrize("ours", WAYS, ids=lambda f: f.__name__)
def test_is_the_modules_in_turn(ours: Callable) -> None:
    x, made = torch.randn(2, 3, 6), modules()
    torch.testing.assert_close(ours(x, made), WAYS[ours](x, made))


@pytest.mark.parametrize("ours", WAYS, ids=lambda f: f.__name__)
def test_a_hooked_or_changed_module_is_called(ours: Callable) -> None:
    x, made = torch.randn(2, 3, 6), modules()
    touched = made["mlp"].fc1 if ours is add_mlp else made["linear"]
    seen: list[Tensor] = []
    handle = touched.register_forward_hook(lambda module, args, out: seen.append(out) or out * 2)
    hooked = ours(x, made)
    assert len(seen) == 1
    torch.testing.assert_close(hooked, WAYS[ours](x, made))
    handle.remove()

    parametrizations.weight_norm(touched)
    touched.parametrizations.weight.original0.data.mul_(3)
    torch.testing.assert_close(ours(x, made), WAYS[ours](x, made))


def test_hooks_on_a_backbone_are_called() -> None:
    model = Swin("nano", 12, (2, 2), (1, 2), window_size=4, out_indices=(0, 1)).eval()
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm, nn.GELU)):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(torch.randn(1, 3, 32, 40))
    assert len(seen) == len(set(seen)) == 1 + 4 * 7 + 2 + 2


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    x = torch.ones(4000, 2, 3, 1)
    out = residual.DropPath(0.25).train()(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert residual.DropPath(0.25).eval()(x) is x
