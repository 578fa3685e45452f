"""Whether code is run to be followed, once for all sizes, and not for what it returns."""

import torch


def compiling() -> bool:
    """Tell whether a compiler follows: what depends on a size has to be asked of symbols."""
    return torch.compiler.is_compiling() or recording()


def recording() -> bool:
    """Tell whether torch.jit.trace notes the operations: they have to be torch's own."""
    return torch.jit.is_tracing()
