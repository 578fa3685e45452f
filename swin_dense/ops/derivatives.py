"""What our ops say to derivatives they do not have, instead of giving 0 for them."""

import warnings
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad


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
        "train on the CPU."
    )
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(text)
    warnings.warn(text, stacklevel=2)


def refuse_second(op: str) -> None:
    """Have a derivative of the gradient of `op` end in an error, for its op `op`_backward."""

    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"{op}: it has no second derivative. Leave out create_graph=True, or compute what has "
            "to be derived twice in plain torch."
        )

    torch.library.register_autograd(f"swin_dense::{op}_backward", backward)


def refuse_forward_mode(op: str, *tensors: Tensor | None) -> None:
    """Refuse tensors that carry a tangent.

    Raises:
        RuntimeError: one does.
    """
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                f"{op}: it has no forward-mode derivative (jvp). Use reverse mode, "
                "torch.autograd.grad."
            )
