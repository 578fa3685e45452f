"""Both ways to read maps, and means over cells of any size, against the ops that they stand for."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from swin_dense import ops
from swin_dense.export.graphs import traceable


@pytest.mark.parametrize("sampling", [traceable._by_grid, traceable._by_gather])
def test_weighted_points_of_a_map(sampling):
    random = torch.Generator().manual_seed(0)
    size = (5, 7)
    maps = torch.randn(2, 35, 3, 4, dtype=torch.float64, generator=random)
    # Inside, across each border and far outside.
    place = torch.rand(2, 11, 3, 6, 2, dtype=torch.float64, generator=random) * 1.6 - 0.3
    place[0, 0, 0, 0] = 9.0
    weights = torch.randn(2, 11, 3, 6, dtype=torch.float64, generator=random)
    found = sampling(maps, size, place, weights)
    want = ops.ms_deform_attn(maps, [size], place[:, :, :, None], weights[:, :, :, None])
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("cells", [1, 2, 3, 6, (4, 1), (None, 5)])
@pytest.mark.parametrize("size", [(13, 9), (3, 5), (1, 2)])
def test_means_over_cells(cells, size):
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    found = traceable._adaptive_average(nn.AdaptiveAvgPool2d(cells), maps)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(maps, cells))
