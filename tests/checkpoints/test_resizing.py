"""Bias tables and place embeddings for another size; nothing else changes its shape."""

import math

import pytest
import torch

from swin_dense.checkpoints import resizing
from swin_dense.checkpoints.resizing import BIAS_TABLE, PLACE_MAP, Resized

TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"
RULES = (("relative_position_bias_table", BIAS_TABLE), ("absolute_pos_embed", PLACE_MAP))


def resize(state, shapes):
    return resizing.resize(state, shapes, RULES)


def cubic(x):
    """The weight of a sample at distance x, after R. Keys, with the a that torch takes."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def by_hand(square, rows, columns):
    """Bicubic interpolation, one number at a time: pixels are areas, the border is repeated."""
    height, width = square.shape
    out = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            y, x = (i + 0.5) * height / rows - 0.5, (j + 0.5) * width / columns - 0.5
            for v in range(math.floor(y) - 1, math.floor(y) + 3):
                for u in range(math.floor(x) - 1, math.floor(x) + 3):
                    sample = square[min(max(v, 0), height - 1), min(max(u, 0), width - 1)].item()
                    out[i, j] += cubic(y - v) * cubic(x - u) * sample
    return out


@pytest.mark.parametrize(("old", "new"), [(3, 5), (4, 3)])
def test_a_table_for_another_window(old, new):
    table = torch.randn((2 * old - 1) ** 2, 2)
    rows = (2 * new - 1) ** 2
    fitted, changes = resize({TABLE: table}, {TABLE: (rows, 2)})
    for head in range(2):
        want = by_hand(table[:, head].view(2 * old - 1, -1), 2 * new - 1, 2 * new - 1)
        got = fitted[TABLE][:, head].view(2 * new - 1, -1)
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    how = f"bias table {old}x{old} -> {new}x{new} window, bicubic"
    assert changes == [Resized(TABLE, (len(table), 2), (rows, 2), how)]


def test_a_place_embedding_for_another_image():
    name, place = "backbone.absolute_pos_embed", torch.randn(1, 2, 4, 3)
    fitted, changes = resize({name: place}, {name: (1, 2, 5, 7)})
    for channel in range(2):
        want = by_hand(place[0, channel], 5, 7)
        torch.testing.assert_close(fitted[name][0, channel].double(), want, atol=1e-5, rtol=1e-5)
    assert changes[0].how == "place embedding 4x3 -> 5x7 patches, bicubic"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (TABLE, (49, 2), (81, 3)),  # another number of heads
        (TABLE, (49, 2), (80, 2)),  # no square
        (TABLE, (64, 2), (49, 2)),  # an even square: no window has it
        ("absolute_pos_embed", (1, 4, 3, 3), (1, 5, 3, 3)),
        ("layers.0.blocks.0.attn.qkv.weight", (12, 4), (15, 5)),
        ("layers.0.blocks.0.attn.cpb_mlp.0.weight", (512, 2), (256, 2)),
    ],
)
def test_all_else_keeps_its_shape(name, old, new):
    tensor = torch.randn(old)
    fitted, changes = resize({name: tensor}, {name: new})
    assert fitted[name] is tensor
    assert changes == []


def test_what_fits_or_is_not_asked_for_is_not_touched():
    state = {TABLE: torch.randn(49, 2), "other": torch.ones(1)}
    fitted, changes = resize(state, {TABLE: (49, 2)})
    assert all(fitted[name] is tensor for name, tensor in state.items())
    assert changes == []


def test_half_precision_stays():
    fitted, _ = resize({TABLE: torch.randn(49, 2).half()}, {TABLE: (81, 2)})
    assert fitted[TABLE].dtype is torch.float16
    assert fitted[TABLE].is_contiguous()
