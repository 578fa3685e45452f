"""Residual branches of a block, from the modules that hold their weights.

The three functions do what calling the modules one after another does, through ops.branches:
faster, and keeping less for the backward pass. That calls no module, so a module that is not a
plain one any more (replaced, parametrised, hooked) is called after all.
"""

from typing import Any

from torch import Tensor, nn

from swin_dense.ops import branches


class DropPath(nn.Module):
    """Drop a residual branch for whole images while training, and scale up the ones kept."""

    def __init__(self, rate: float) -> None:
        """
        Args:
            rate: share of the images that lose the branch, 0 to below 1.
        """
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return times(x, self.draw(x))

    def draw(self, x: Tensor) -> Tensor | None:
        """(B, ...) -> (B, 1, ...): what the branch is multiplied by; None for 1."""
        if not self.training or self.rate == 0:
            return None
        kept = x.new_empty(len(x), *[1] * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return kept / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def norm_linear(x: Tensor, norm: nn.Module, linear: nn.Module) -> Tensor:
    """(..., C) -> (..., K): linear(norm(x))."""
    if plain(norm, linear):
        return branches.norm_linear(x, _norm(norm), _linear(linear))
    return linear(norm(x))


def add_linear(to: Tensor, x: Tensor, linear: nn.Module, factor: Tensor | None) -> Tensor:
    """(..., K), (..., C) -> (..., K): to + factor * linear(x)."""
    if plain(linear):
        return branches.add_linear(to, x, _linear(linear), factor)
    return to + times(linear(x), factor)


def add_mlp(x: Tensor, norm: nn.Module, mlp: "Mlp", factor: Tensor | None) -> Tensor:
    """(..., C) -> (..., C): x + factor * mlp(norm(x))."""
    if plain(norm, mlp, mlp.fc1, mlp.act, mlp.fc2):
        return branches.add_mlp(x, _norm(norm), _linear(mlp.fc1), _linear(mlp.fc2), factor)
    return x + times(mlp(norm(x)), factor)


def add_normed_linear(
    to: Tensor, x: Tensor, linear: nn.Module, norm: nn.Module, factor: Tensor | None
) -> Tensor:
    """(..., K), (..., C) -> (..., K): to + factor * norm(linear(x))."""
    return to + times(norm(linear(x)), factor)


def add_normed_mlp(x: Tensor, mlp: "Mlp", norm: nn.Module, factor: Tensor | None) -> Tensor:
    """(..., C) -> (..., C): x + factor * norm(mlp(x))."""
    return x + times(norm(mlp(x)), factor)


class Mlp(nn.Module):
    """Two linear maps with a GELU between, for each token by itself."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(self.act(self.fc1(x)))


def plain(*modules: nn.Module) -> bool:
    """Tell whether calling these modules does what their class does and no more: no hooks."""
    return all(
        type(m) in _PLAIN
        and not (m._forward_hooks or m._forward_pre_hooks)
        and not (m._backward_hooks or m._backward_pre_hooks)
        for m in modules
    )


_PLAIN = (nn.Linear, nn.LayerNorm, nn.GELU, Mlp)


def times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _norm(norm: Any) -> branches.Norm:
    return branches.Norm(norm.weight, norm.bias, norm.eps)


def _linear(linear: Any) -> branches.Linear:
    return branches.Linear(linear.weight, linear.bias)
