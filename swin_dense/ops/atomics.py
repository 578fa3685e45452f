"""What kernels say that add up in no fixed order where a fixed one was asked for."""

import warnings

import torch
from torch import Tensor


def refuse_atomics(op: str, grad: Tensor) -> None:
    """Heed torch.use_deterministic_algorithms before the backward of `op` on CUDA.

    Raises:
        RuntimeError: it is on. With warn_only=True this is a warning.
    """
    if not (grad.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return
    text = (
        f"{op}: its gradient on CUDA is added up in no fixed order, and "
        "torch.use_deterministic_algorithms is on. Switch that off, give it warn_only=True, or "
        "train on the CPU, where the order is fixed."
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(text)
    warnings.warn(text, stacklevel=2)
