"""Weights whose size follows from the window or the image, made to fit another one.

Which they are an architecture says (`Architecture.resized`). Each way interpolates the square, or
the line, that such a tensor stands for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isqrt

import torch.nn.functional as F
from torch import Tensor, cat

from swin_dense.checkpoints.names import template

Shape = tuple[int, ...]
PATCH = 8  # pixels of the smallest side of a patch that can stand for one of another size
CLASS_ROWS = 3  # of a table: class to place, place to class, class to class


@dataclass(frozen=True)
class Resizer:
    """A way to make a tensor fit another shape.

    Attributes:
        how: says in words how to get from one shape to the other, "" if that cannot be.
        interpolate: does it.
    """

    how: Callable[[Shape, Shape], str]
    interpolate: Callable[[Tensor, Shape], Tensor]


@dataclass(frozen=True)
class Resized:
    """A tensor that was interpolated."""

    name: str
    old: Shape
    new: Shape
    how: str


def resize(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    rules: Iterable[tuple[str, Resizer]],
) -> tuple[dict[str, Tensor], list[Resized]]:
    """Interpolate tensors of `state` to `shapes`.

    Everything else, and what differs by more than a rule allows, stays as it is.

    Args:
        rules: the last word of a name, or a template of it (`names`), and the way to resize such a
            tensor; the first that can.
    """
    rules = list(rules)
    fitted: dict[str, Tensor] = {}
    changes: list[Resized] = []
    for name, tensor in state.items():
        fitted[name] = tensor
        old, new = tuple(tensor.shape), tuple(shapes.get(name, tensor.shape))
        for word, resizer in rules if old != new else ():
            if _is_called(name, word) and (how := resizer.how(old, new)):
                fitted[name] = resizer.interpolate(tensor, new)
                changes.append(Resized(name, old, new, how))
                break
    return fitted, changes


def _is_called(name: str, word: str) -> bool:
    if "{" in word:
        return template(word).read(name) is not None
    return name.rpartition(".")[2] == word


def _how_table(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 2 and old[1] == new[1]:
        before, after = _window(old[0]), _window(new[0])
        if before and after:
            return f"bias table {before}x{before} -> {after}x{after} window, bicubic"
    return ""


def _window(rows: int) -> int:
    """Return the side of the window whose bias table has so many rows, 0 if none has."""
    side = isqrt(rows)
    return (side + 1) // 2 if side**2 == rows and side % 2 else 0


def _resize_table(table: Tensor, new: Shape) -> Tensor:
    old_side, new_side = isqrt(len(table)), isqrt(new[0])
    picture = table.T.unflatten(1, (old_side, old_side))[None]
    return _bicubic(picture, (new_side, new_side))[0].flatten(1).T.contiguous()


def _how_map(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 4 and old[:2] == new[:2]:
        return f"place embedding {old[2]}x{old[3]} -> {new[2]}x{new[3]} patches, bicubic"
    return ""


def _resize_map(picture: Tensor, new: Shape) -> Tensor:
    return _bicubic(picture, new[2:])


def _how_places(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 3 and old[0] == new[0] == 1 and old[2] == new[2]:
        before, after = isqrt(old[1] - 1), isqrt(new[1] - 1)
        if before**2 + 1 == old[1] and after**2 + 1 == new[1]:
            return f"place vectors {before}x{before} -> {after}x{after} patches, bicubic"
    return ""


def _resize_places(table: Tensor, new: Shape) -> Tensor:
    before, after = isqrt(table.shape[1] - 1), isqrt(new[1] - 1)
    grid = table[:, 1:].unflatten(1, (before, before)).permute(0, 3, 1, 2)
    grid = _bicubic(grid, (after, after)).flatten(2).transpose(1, 2)
    return cat([table[:, :1], grid], 1)


def _how_line(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 2 and old[1] == new[1] and old[0] % 2 and new[0] % 2:
        return f"relative positions {old[0]} -> {new[0]} differences, linear"
    return ""


def _resize_line(table: Tensor, new: Shape) -> Tensor:
    line = F.interpolate(table.float().T[None], size=new[0], mode="linear")[0]
    return line.T.contiguous().to(table.dtype)


def _how_class_table(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 2 and old[1] == new[1]:
        before, after = _window(old[0] - CLASS_ROWS), _window(new[0] - CLASS_ROWS)
        if before and after:
            return f"bias table {before}x{before} -> {after}x{after} patches, bicubic"
    return ""


def _resize_class_table(table: Tensor, new: Shape) -> Tensor:
    rest = len(table) - CLASS_ROWS
    return cat([_resize_table(table[:rest], (new[0] - CLASS_ROWS, *new[1:])), table[rest:]])


def _how_kernel(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 4 and old[:2] == new[:2]:
        more = {(b - a) / 2 for a, b in zip(old[2:], new[2:], strict=True)}
        if len(more) == 1 and min(more) > 0 and all(m.is_integer() for m in more):
            return f"kernel {old[2]}x{old[3]} -> {new[2]}x{new[3]}, zeros around it"
    return ""


def _resize_kernel(kernel: Tensor, new: Shape) -> Tensor:
    more = (new[-1] - kernel.shape[-1]) // 2
    return F.pad(kernel, (more,) * 4)


def _how_patches(old: Shape, new: Shape) -> str:
    if len(old) == len(new) == 4 and old[:2] == new[:2] and min(*old[2:], *new[2:]) >= PATCH:
        return f"patches {old[2]}x{old[3]} -> {new[2]}x{new[3]} pixels, bicubic"
    return ""


def _resize_patches(kernel: Tensor, new: Shape) -> Tensor:
    return _bicubic(kernel, new[2:])


def _how_gates(old: Shape, new: Shape) -> str:
    if len(old) == len(new) and old[1:] == new[1:] and min(old[0], new[0]) > 1:
        return f"gates {old[0]} -> {new[0]} rows: the last stays last, new ones are 0"
    return ""


def _resize_gates(table: Tensor, new: Shape) -> Tensor:
    kept = table[: min(len(table), new[0]) - 1]
    added = table.new_zeros(new[0] - 1 - len(kept), *table.shape[1:])
    return cat([kept, added, table[-1:]])


def _bicubic(picture: Tensor, size: Shape) -> Tensor:
    return F.interpolate(picture.float(), size=size, mode="bicubic").to(picture.dtype)


BIAS_TABLE = Resizer(_how_table, _resize_table)  # ((2 * window - 1)^2, heads)
PLACE_MAP = Resizer(_how_map, _resize_map)  # (1, channels, rows, columns)
PLACES = Resizer(_how_places, _resize_places)  # (1, 1 + side^2, channels), a class token's first
DIFFERENCES = Resizer(_how_line, _resize_line)  # (2 * side - 1, channels of a head)
PATCHES = Resizer(_how_patches, _resize_patches)  # the kernel that patches of pixels go through
KERNEL = Resizer(_how_kernel, _resize_kernel)  # of a convolution: a larger one that does the same
GATES = Resizer(_how_gates, _resize_gates)  # rows for levels, the last one for the whole map
CLASS_TABLE = Resizer(_how_class_table, _resize_class_table)  # with CLASS_ROWS at its end
