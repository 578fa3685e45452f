"""Label maps of overlapping tiles, made that of the whole image.

The probabilities of a tile count less towards its borders with other tiles: its weight falls
linearly, over what it shares with its neighbours, to almost nothing. Of the whole image only what
the next tiles will add to is held: the last columns of a tile, and below a row of tiles its last
rows, with 16 bits. Letters: C classes, h w of a tile, H W of the image.
"""

import numpy as np
import torch

from swin_dense.openmmlab.engine.grid import Grid


class Blend:
    """Takes the probabilities of tiles, row by row, and writes labels as soon as they are known.

    Attributes:
        labels: (H, W), to be filled.
    """

    def __init__(self, grid: Grid, labels: np.ndarray) -> None:
        self.grid, self.labels = grid, labels
        self._weights = [
            [_weight(begins, tile, k) for k in range(len(begins))]
            for begins, tile in ((grid.rows, grid.tile[0]), (grid.columns, grid.tile[1]))
        ]
        self._above: torch.Tensor | None = None  # (C, shared rows, W), of the tiles above
        self._below: torch.Tensor | None = None
        self._left: torch.Tensor | None = None  # (C, h, shared columns), of the tile to the left

    def add(self, i: int, j: int, probabilities: torch.Tensor) -> None:
        """Add those (C, h, w) of the next tile, on the CPU; they are changed."""
        grid, (height, width) = self.grid, self.grid.tile
        top, left = grid.rows[i], grid.columns[j]
        if j == 0:
            self._above, self._below, self._left = self._below, None, None
        probabilities *= self._weights[0][i][:, None] * self._weights[1][j]
        known = 0  # columns in which those above were added by the tile to the left
        if self._left is not None:
            known = self._left.shape[2]
            probabilities[:, :, :known] += self._left
        if self._above is not None:
            rows = self._above.shape[1]
            probabilities[:, :rows, known:] += self._above[:, :, left + known : left + width]
        last = i + 1 == len(grid.rows), j + 1 == len(grid.columns)
        down = height if last[0] else grid.rows[i + 1] - top  # rows and columns that are complete
        across = width if last[1] else grid.columns[j + 1] - left
        found = probabilities[:, :down, :across].argmax(0).numpy()
        self.labels[top : top + down, left : left + across] = found
        self._left = None if last[1] else probabilities[:, :, across:].clone()
        if not last[0]:
            if self._below is None:
                shape = len(probabilities), height - down, grid.size[1]
                self._below = torch.zeros(shape, dtype=torch.float16)
            self._below[:, :, left : left + across] = probabilities[:, down:, :across]


def kind_of_labels(classes: int) -> type[np.unsignedinteger]:
    """Return the smallest type that holds the labels."""
    return np.uint8 if classes <= 256 else np.uint16


def _weight(begins: tuple[int, ...], tile: int, k: int) -> torch.Tensor:
    """Return the weight (tile,) along one side of a tile."""
    weight = torch.ones(tile)
    if k:
        shared = begins[k - 1] + tile - begins[k]
        weight[:shared] = _rising(shared)
    if k + 1 < len(begins):
        shared = begins[k] + tile - begins[k + 1]
        # Tiles that share more than a half of them fall before they have risen.
        weight[tile - shared :] = torch.minimum(weight[tile - shared :], _rising(shared).flip(0))
    return weight


def _rising(count: int) -> torch.Tensor:
    return (torch.arange(count) + 0.5) / max(count, 1)
