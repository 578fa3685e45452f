"""On which devices a test runs; where there is no CUDA device its part is skipped, and counted."""

import pytest
import torch

from swin_dense.ops import extension

CUDA_COUNT = torch.cuda.device_count() if torch.cuda.is_available() else 0
needs_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(CUDA_COUNT == 0, reason="needs a CUDA device"),
]


def unordered(device: str) -> float:
    """How far two runs of a gradient in float64 may lie apart: on CUDA sums have no fixed order."""
    return 0.0 if device == "cpu" else 1e-9


DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]

needs_kernels = pytest.mark.skipif(extension.MISSING is not None, reason=str(extension.MISSING))
