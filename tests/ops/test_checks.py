"""What the fronts of all ops say, word for word; that they ask is tested with each op."""

import pytest
import torch

from swin_dense.ops import reference
from swin_dense.ops.checks import require_floats, require_one_device


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn],
)
def test_numbers_are_of_what_kernels_compute_with(dtype):
    known = {str(x): torch.ones(2, dtype=x) for x in reference.FLOATING}
    assert len(known) == 4
    require_floats("op", **known, none=None)
    with pytest.raises(ValueError) as caught:
        require_floats("op", **known, none=None, wrong=torch.empty(2, dtype=dtype))
    assert str(caught.value) == (
        "op: wrong holds numbers of float32, float64, float16 or bfloat16; it has "
        f"{dtype}. Convert it with .float()."
    )


def test_tensors_are_where_the_first_one_is():
    here, there = torch.ones(2), torch.ones(3, dtype=torch.long, device="meta")
    require_one_device("op", none=None, first=there, second=there)
    with pytest.raises(ValueError) as caught:
        require_one_device("op", first=here, none=None, second=here, third=there, fourth=there)
    assert str(caught.value) == (
        "op: all tensors are on one device; first is on cpu, third on meta. Move them to one, e.g. "
        "with third.to(first.device)."
    )
