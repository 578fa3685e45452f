"""What other projects have of the same meaning, to be measured beside ours."""

from collections.abc import Callable

from mmcv.ops import multi_scale_deform_attn
from mmdet.models.backbones import SwinTransformer
from torch import Tensor, nn


def mmdet_swin_t() -> nn.Module:
    """mmdet's Swin-T with the sizes of our "tiny"."""
    return SwinTransformer(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))


def published_ms_deform_attn() -> Callable[..., Tensor]:
    """mmcv's plain-torch function: (value, spatial_shapes, locations, weights) -> out."""
    names = vars(multi_scale_deform_attn)
    return names.get("published") or names["multi_scale_deformable_attn_pytorch"]
