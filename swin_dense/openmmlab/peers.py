"""Other projects' models of the same architecture, to be measured beside ours."""

from mmdet.models.backbones import SwinTransformer
from torch import nn


def mmdet_swin_t() -> nn.Module:
    """mmdet's Swin-T with the sizes of our preset "tiny"."""
    return SwinTransformer(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
