"""Simple feature pyramid: several resolutions from the last map of a plain ViT (arXiv 2203.16527).

Letters: B images, C channels.
"""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from swin_dense.errors import InputError
from swin_dense.layers.channel_norm import ChannelNorm
from swin_dense.registry import MODELS

SCALES = (4.0, 2.0, 1.0, 0.5)


MODELS.register_module(module=ChannelNorm)  # a norm_cfg of heads names it


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Enlarge and shrink one map, then two convolutions and norms for each size (section 3).

    From the stride of the patches, s, the sizes are s / 4 (two transposed convolutions), s / 2
    (one), s, 2 * s (the largest of 2x2), then one more level, the last one sampled at every second
    place, for a proposal network. The norms are over channels, as the authors' "LN".
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        scale_factors: Sequence[float] = SCALES,
        num_outs: int = 5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            in_channels: C of each map of the backbone; the last map is taken.
            out_channels: C of each level.
            scale_factors: sizes beside the map's own, of 4, 2, 1 and 0.5, in falling order.
            num_outs: levels; more than there are scale factors by at most one.
        """
        super().__init__(init_cfg)
        levels, known = len(scale_factors), set(scale_factors) <= set(SCALES)
        falling = list(scale_factors) == sorted(set(scale_factors), reverse=True)
        if not known or not falling or not levels:
            raise InputError(
                f"SimpleFeaturePyramid: scale_factors are some of {SCALES}, in falling order; got "
                f"{tuple(scale_factors)}."
            )
        if num_outs not in (levels, levels + 1):
            raise InputError(
                f"SimpleFeaturePyramid: num_outs is {levels}, a level for each of scale_factors, "
                f"or {levels + 1} with a coarser one; got {num_outs}."
            )
        channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        self.num_outs, self.out_channels = num_outs, [out_channels] * num_outs
        self.levels = nn.ModuleList(
            nn.Sequential(*_resized(channels, scale), *_mixed(channels, scale, out_channels))
            for scale in scale_factors
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of a plain ViT -> maps (B, out_channels, ...), fine to coarse."""
        found = [level(maps[-1]) for level in self.levels]
        if self.num_outs > len(found):
            found.append(F.max_pool2d(found[-1], 1, stride=2))
        return tuple(found)


def _resized(channels: int, scale: float) -> list[nn.Module]:
    """Return what brings a map to another size; each enlargement halves the channels."""
    if scale == 4:
        return [
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
            ChannelNorm(channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
        ]
    if scale == 2:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)]
    return [nn.MaxPool2d(2, stride=2)] if scale == 0.5 else []


def _mixed(channels: int, scale: float, out: int) -> list[nn.Module]:
    """Return a 1x1 and a 3x3 convolution, each with its norm."""
    before = channels // int(max(scale, 1))
    return [
        nn.Conv2d(before, out, 1, bias=False),
        ChannelNorm(out),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        ChannelNorm(out),
    ]
