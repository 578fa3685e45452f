"""Train in bfloat16 on every device; mmengine's own wrapper asks for a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from swin_dense.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class Bfloat16OptimWrapper(OptimWrapper):
    """Compute forward passes under bfloat16 autocast, without loss scaling.

    Its range is that of float32.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        device = torch.device(get_device()).type
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
