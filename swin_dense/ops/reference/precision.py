import torch


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over numbers of `dtype` are kept."""
    return torch.float64 if dtype == torch.float64 else torch.float32
