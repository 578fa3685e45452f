"""The other sides of the rows about neighborhood attention compute the same."""

import pytest
import torch

from swin_dense.benchmarks import neighborhoods
from swin_dense.ops import neighborhood_attention, reference

pytestmark = pytest.mark.plain


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("dilation", [1, 2])
def test_flex_attention_sees_the_same(dilation):
    """Sides that leave a rest by the dilation, and fewer heads than a row has."""
    height, width = 15, 17
    maps = [torch.randn(1, height, width, 2, 16) for _ in range(3)]
    mask = neighborhoods._seen_blocks(height, width, dilation, "cpu")
    heads = [x.flatten(1, 2).transpose(1, 2) for x in maps]
    found = neighborhoods.flex_attention(*heads, block_mask=mask)
    expected = neighborhood_attention(*maps, None, neighborhoods.WINDOW, dilation)
    torch.testing.assert_close(found.transpose(1, 2).unflatten(1, (height, width)), expected)


def test_the_gather_is_the_meaning():
    maps = [torch.randn(1, 15, 17, 2, 16) for _ in range(3)]
    table = torch.randn(2, 13, 13)
    found = neighborhoods.by_gather(*maps, table, 7, 2)
    expected = reference.neighborhood_attention(*maps, table, 7, 2, 2, 16**-0.5)
    torch.testing.assert_close(found, expected)
