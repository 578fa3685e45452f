"""The order of the channels that patch merging joins.

Four tokens of C channels become one of 4 C. The authors lay the tokens one after the other, down
the left column of the four and then down the right: (row, column) = (0,0) (1,0) (0,1) (1,1).
OpenMMLab takes nn.Unfold, which lays the channels one after the other, each with its four tokens
along the rows: (0,0) (0,1) (1,0) (1,1).

Both orders have the same names and shapes within a layout, and weights in any order are a possible
model, so what tells the order is the layout, by its other names: whoever calls a layer
"ffn.layers.0.0" merges by nn.Unfold. A file whose names were changed by hand without its channels
is not recognised here; `suspicious` looks for it in trained numbers, where the four places of one
channel grow alike. That the second and the third token changed places, nothing shows.
"""

import re

from torch import Tensor

SWAPPED = [0, 2, 1, 3]  # the second and third token change places between the two orders
MERGED = re.compile(r"(?:.*\.)?downsample\.(reduction\.weight|norm\.(?:weight|bias))")


def from_unfold(x: Tensor) -> Tensor:
    """(..., 4 C) in the order of nn.Unfold -> (..., 4 C) in the authors' order."""
    return x.unflatten(-1, (-1, 4))[..., SWAPPED].transpose(-1, -2).flatten(-2)


def to_unfold(x: Tensor) -> Tensor:
    """(..., 4 C) in the authors' order -> (..., 4 C) in the order of nn.Unfold."""
    return x.unflatten(-1, (4, -1))[..., SWAPPED, :].transpose(-1, -2).flatten(-2)


def is_merged(name: str, architecture: str) -> bool:
    """Whether the last axis of this tensor of ours holds four tokens; V2 norms what it reduced."""
    match = MERGED.fullmatch(name)
    return match is not None and (architecture != "Swin V2" or match[1] == "reduction.weight")
