"""Small backbones of every architecture, far from where they start, and what flows back."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn

SHARED = Path(os.environ.get("SWIN_DENSE_SHARED", Path(__file__).parents[1].parent / "shared"))
SMALL = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4), "window_size": 4}


def randomised(model: nn.Module) -> nn.Module:
    """Every parameter away from where it starts, so that no branch is the identity."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(1 + 0.3 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
    return model


def small(kind: type[nn.Module], **changes) -> nn.Module:
    return randomised(kind(**{**SMALL, **changes}))


def weighted_sum(maps: tuple[Tensor, ...]) -> Tensor:
    return sum((m * torch.linspace(-1, 1, m.numel()).view_as(m).to(m.device)).sum() for m in maps)


def gradients(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    image = image.clone().requires_grad_()
    weighted_sum(model(image)).backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"image": image.grad, **found}


def assert_gradients_close(got: dict[str, Tensor], want: dict[str, Tensor], rel: float) -> None:
    assert got.keys() == want.keys()
    for name, theirs in want.items():
        error = (got[name] - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)
        assert error <= rel, f"{name}: relative error {error:.1e}"
