"""The two orders of the channels that are merged, by hand and through the layers that use them."""

import pytest
import torch
from torch import nn

from swin_dense.backbones.swin_weights import orders
from swin_dense.checkpoints import names

# Two channels of four tokens, written as channel, row, column.
AUTHORS = ["a00", "b00", "a10", "b10", "a01", "b01", "a11", "b11"]
UNFOLD = ["a00", "a01", "a10", "a11", "b00", "b01", "b10", "b11"]


def test_orders_by_hand():
    codes = {name: float(number) for number, name in enumerate(AUTHORS)}
    authors = torch.tensor([codes[name] for name in AUTHORS])
    unfold = torch.tensor([codes[name] for name in UNFOLD])
    assert torch.equal(orders.from_unfold(unfold), authors)
    assert torch.equal(orders.to_unfold(authors), unfold)


def test_orders_are_those_of_the_layers():
    """What each code sees of a map whose numbers say channel, row and column."""
    channels, rows, columns = torch.arange(3.0), torch.arange(2.0), torch.arange(2.0)
    x = 100 * channels[:, None, None] + 10 * rows[:, None] + columns  # (C, 2, 2)
    unfold = nn.Unfold(2, stride=2)(x[None])[0, :, 0]
    authors = torch.cat([x[:, 0, 0], x[:, 1, 0], x[:, 0, 1], x[:, 1, 1]])
    assert torch.equal(orders.from_unfold(unfold), authors)
    assert torch.equal(orders.to_unfold(authors), unfold)


def test_a_matrix_is_ordered_along_its_columns():
    matrix = torch.randn(6, 12)
    for row, ordered in zip(matrix, orders.from_unfold(matrix), strict=True):
        assert torch.equal(orders.from_unfold(row), ordered)
    assert torch.equal(orders.to_unfold(orders.from_unfold(matrix)), matrix)


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("layers.0.downsample.reduction.weight", True, True),
        ("layers.2.downsample.norm.bias", True, False),  # version 2 norms 2 C
        ("layers.0.blocks.1.norm1.weight", False, False),
        ("norm0.weight", False, False),
    ],
)
def test_which_tensors_hold_four_tokens(name, one, two):
    for kind, wanted in (("Swin V1", one), ("Swin V2", two)):
        merged = [order.name for order in orders.unfold(kind)]
        assert (names.first(merged, name) is not None) is wanted
