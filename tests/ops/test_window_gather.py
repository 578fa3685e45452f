"""The tables of addresses: made once for a size, never spoilt, never too many."""

import pytest
import torch
from test_window_attention import RAGGED, answers, attend, sample
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense.ops import window_gather

pytestmark = pytest.mark.plain


def test_evaluation_first_does_not_spoil_training() -> None:
    window_gather._addresses.cache_clear()
    inputs = sample(RAGGED)
    with torch.inference_mode():
        attend(inputs, RAGGED, back_end="sdpa")
    answers(inputs, RAGGED, back_end="sdpa")


def test_many_sizes_do_not_fill_the_memory() -> None:
    for width in range(1, 60):
        case = (1, 2, width, 1, 2, 3, 1)
        attend(sample(case), case, back_end="sdpa")
    kept = window_gather._addresses.cache_info()
    assert kept.currsize <= kept.maxsize <= 64


def test_a_traced_call_leaves_nothing_behind() -> None:
    window_gather._addresses.cache_clear()
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in sample(RAGGED)]
        assert attend(fake, RAGGED, back_end="sdpa").shape == (2, 5, 7, 18)
    assert window_gather._addresses.cache_info().currsize == 0


def test_a_transformed_call_leaves_nothing_behind() -> None:
    window_gather._addresses.cache_clear()
    qkv, *rest = sample(RAGGED)
    by_qkv = torch.func.grad(lambda x: attend([x, *rest], RAGGED, back_end="sdpa").sum())(qkv)
    assert window_gather._addresses.cache_info().currsize == 0
    leaf = qkv.requires_grad_()
    attend([leaf, *rest], RAGGED, back_end="sdpa").sum().backward()
    torch.testing.assert_close(by_qkv, leaf.grad)


def test_exports_for_all_sizes_of_more_than_one_window() -> None:
    class Attend(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return attend(inputs, RAGGED, back_end="sdpa")

    inputs = sample(RAGGED)
    sides = {1: torch.export.Dim("height", min=5), 2: torch.export.Dim("width", min=5)}
    program = torch.export.export(
        Attend(), tuple(inputs), dynamic_shapes=((sides, None, None, None),)
    )
    for height, width in ((5, 7), (8, 12), (9, 6)):
        other = [torch.randn(2, height, width, *inputs[0].shape[3:]).double(), *inputs[1:]]
        torch.testing.assert_close(program.module()(*other), Attend()(*other))
