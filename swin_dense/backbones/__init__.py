"""One file per architecture: an image to a tuple of maps, channels and strides announced."""

from swin_dense.backbones import swin_weights  # noqa: F401  registers them
from swin_dense.backbones.swin import Swin
from swin_dense.backbones.swin_v2 import SwinV2

__all__ = ["Swin", "SwinV2"]
