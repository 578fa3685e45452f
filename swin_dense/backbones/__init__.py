"""One file per architecture: an image to a tuple of maps, channels and strides announced."""

from swin_dense.backbones.swin import Swin

__all__ = ["Swin"]
