"""Numbers that other projects lay in another order: patch merging and the place embedding.

Patch merging makes one token of 4 C channels of four tokens of C. The authors lay the tokens one
after the other, down the left column of the four and then down the right: (row, column) = (0,0)
(1,0) (0,1) (1,1). OpenMMLab takes nn.Unfold, which lays the channels one after the other, each with
its four tokens along the rows: (0,0) (0,1) (1,0) (1,1).

Both orders have the same names and shapes within a layout, and weights in any order are a possible
model, so the layout tells the order by its other names: whoever calls a layer "ffn.layers.0.0"
merges by nn.Unfold. A file whose names were changed by hand without its channels is not recognised
by its names; `other_merging` looks for it in trained numbers, where the four places of one channel
grow alike. That the second and the third token changed places, nothing shows.
"""

import re
from collections.abc import Iterator, Mapping
from math import isqrt, log

from torch import Tensor

from swin_dense.backbones.swin_weights.rows import V2
from swin_dense.checkpoints.architecture import Order

SWAPPED = [0, 2, 1, 3]  # the second and third token change places between the two orders
REDUCTION = re.compile(r"(?P<place>layers\.\d+\.downsample\.)reduction\.weight")
TRAINED = 1e-3  # spread of a norm's weights below which it is as it was drawn
CLEAR = 0.2  # mean logarithm; 0 means that the two orders explain the numbers equally well


def from_unfold(x: Tensor) -> Tensor:
    """Lay (..., 4 C) from the order of nn.Unfold in the authors'; other sizes stay as they are."""
    if x.shape[-1:].numel() % 4:
        return x
    return x.unflatten(-1, (-1, 4))[..., SWAPPED].transpose(-1, -2).flatten(-2)


def to_unfold(x: Tensor) -> Tensor:
    """Lay (..., 4 C) from the authors' order in that of nn.Unfold."""
    return x.unflatten(-1, (4, -1))[..., SWAPPED, :].transpose(-1, -2).flatten(-2)


def unfold(kind: str) -> tuple[Order, ...]:
    """Give the tensors whose last axis holds four tokens; V2 norms what it reduced."""
    ends = ("reduction.weight",) if kind == V2 else ("reduction.weight", "norm.{end}")
    return tuple(Order("layers.{stage}.downsample." + end, from_unfold, to_unfold) for end in ends)


def as_map(embedding: Tensor) -> Tensor:
    """Make (1, H * W, C) a map (1, C, H, W) if it is a square; else it stays as it is."""
    side = isqrt(embedding.shape[1]) if embedding.dim() == 3 else 0
    if side == 0 or side**2 != embedding.shape[1]:
        return embedding
    return embedding.transpose(1, 2).unflatten(2, (side, side)).contiguous()


def as_row(embedding: Tensor) -> Tensor:
    """Make a map (1, C, H, W) a row (1, H * W, C)."""
    return embedding.flatten(2).transpose(1, 2).contiguous()


def _unchanged(embedding: Tensor) -> Tensor:
    return embedding


PLACE_ROW = Order("absolute_pos_embed", as_map, as_row)  # of classifiers
PLACE_MAP = Order("absolute_pos_embed", as_map, _unchanged)  # of dense models


def other_merging(state: Mapping[str, Tensor]) -> str:
    """Say so if the names are the authors', but patch merging has its channels in another order.

    In the authors' order, places i, i + C, i + 2C and i + 3C hold one channel of the four tokens,
    in the order of nn.Unfold places 4i to 4i + 3 do. Training makes the weights of one channel
    alike, so the order whose groups of four are more alike is the one the file was written in.
    """
    signs = [sign for name in state for sign in _signs(state, name)]
    if not signs or sum(signs) / len(signs) <= CLEAR:
        return ""
    return (
        "has the authors' names, but its patch merging has its channels in the order of "
        "nn.Unfold, as OpenMMLab's Swin has: somebody renamed the tensors without reordering "
        "them, and the model would see shuffled channels. Convert the file it was made from with "
        "tools/convert.py."
    )


def _signs(state: Mapping[str, Tensor], name: str) -> Iterator[float]:
    """Yield what is positive where the order of nn.Unfold explains a merging's numbers better."""
    match = REDUCTION.fullmatch(name)
    if match is None or state[name].dim() != 2 or state[name].shape[1] % 4:
        return
    reduction = state[name].float()
    norm = state.get(f"{match['place']}norm.weight")
    if norm is None or float(norm.float().std()) < TRAINED:
        return
    yield _sign(reduction.norm(dim=0))
    for end in ("weight", "bias"):
        values = state.get(f"{match['place']}norm.{end}")
        if values is not None and len(values) == reduction.shape[1]:  # V2 norms what it reduced
            yield _sign(values.float())


def _sign(values: Tensor) -> float:
    authors = values.view(4, -1).var(0).mean()
    unfold = values.view(-1, 4).var(1).mean()
    return log(float(authors + 1e-12) / float(unfold + 1e-12))
