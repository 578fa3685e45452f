import torch

# What kernels and references compute with.
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over numbers of `dtype` are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32
