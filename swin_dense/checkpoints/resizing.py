"""Weights whose size follows from the window or the image, made to fit another one.

Only two kinds are ever resized, both as the authors do, by bicubic interpolation of the square they
stand for. Version 2 computes its position bias for any window, so it needs none of this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import torch.nn.functional as F
from torch import Tensor

TABLE = "relative_position_bias_table"  # ((2 * window - 1)^2, heads)
PLACE = "absolute_pos_embed"  # (1, channels, rows, columns)


@dataclass(frozen=True)
class Resized:
    """A tensor that was interpolated."""

    name: str
    old: tuple[int, ...]
    new: tuple[int, ...]
    how: str


def resize(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Tensor], list[Resized]]:
    """Interpolate bias tables and absolute place embeddings of `state` to `shapes`.

    Everything else, and what differs by more than the window or the image, stays as it is.
    """
    fitted: dict[str, Tensor] = {}
    changes: list[Resized] = []
    for name, tensor in state.items():
        old, new = tuple(tensor.shape), tuple(shapes.get(name, tensor.shape))
        how = None if old == new else _how(name, old, new)
        fitted[name] = tensor if how is None else _interpolated(tensor, new)
        if how is not None:
            changes.append(Resized(name, old, new, how))
    return fitted, changes


def _how(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    """What is done to get from one shape to the other; None if nothing can be."""
    kind = name.rpartition(".")[2]
    if kind == TABLE and len(old) == len(new) == 2 and old[1] == new[1]:
        before, after = _window(old[0]), _window(new[0])
        if before and after:
            return f"bias table {before}x{before} -> {after}x{after} window, bicubic"
    if kind == PLACE and len(old) == len(new) == 4 and old[:2] == new[:2]:
        return f"place embedding {old[2]}x{old[3]} -> {new[2]}x{new[3]} patches, bicubic"
    return None


def _window(rows: int) -> int:
    """Side of the window whose bias table has so many rows, 0 if none has."""
    side = isqrt(rows)
    return (side + 1) // 2 if side**2 == rows and side % 2 else 0


def _interpolated(tensor: Tensor, new: tuple[int, ...]) -> Tensor:
    if tensor.dim() == 4:
        picture, size = tensor, new[2:]
    else:
        old_side, new_side = isqrt(len(tensor)), isqrt(new[0])
        picture = tensor.T.unflatten(1, (old_side, old_side))[None]
        size = (new_side, new_side)
    resized = F.interpolate(picture.float(), size=size, mode="bicubic").to(tensor.dtype)
    return resized if tensor.dim() == 4 else resized[0].flatten(1).T.contiguous()
