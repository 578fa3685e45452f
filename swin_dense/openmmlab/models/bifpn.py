"""BiFPN: a pyramid fused down and up again by learned weights (arXiv 1911.09070).

Written from the paper, with the numbers of RepPoints V2 (arXiv 2007.08508) in the detector of
arXiv 2103.14030, table 2a. Letters: B images, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_dense.errors import InputError
from swin_dense.registry import MODELS

EPSILON = 1e-4  # of the paper; keeps a fusion finite when none of its weights is above 0


def halve(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2)), each place the largest of 3x3."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, ., .) -> the height and width of `like`, each place its nearest one."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


class Fusion(nn.Module):
    """Maps of one size to one map: their weighted mean, swish, 3x3 convolution and norm."""

    def __init__(self, count: int, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(count))
        self.conv = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C, h, w) of each map -> (B, C, h, w)."""
        weights = self.weights.relu()
        shares = (weights / (weights.sum() + EPSILON)).unbind()
        parts = [share * x for share, x in zip(shares, maps, strict=True)]
        return self.conv(F.silu(sum(parts[1:], parts[0])))


class DownAndUp(nn.Module):
    """One repeat: each level takes in the coarser ones, then the finer ones and itself again."""

    def __init__(self, levels: int, channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        # In the order of the levels: down[i] makes level i, up[i] level i + 1.
        self.down = nn.ModuleList(Fusion(2, channels, norm_cfg) for _ in range(levels - 1))
        counts = [3] * (levels - 2) + [2]  # the coarsest is the same before and after the way down
        self.up = nn.ModuleList(Fusion(count, channels, norm_cfg) for count in counts)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Fuse one map of each level, finest first; return as many, of the same shapes."""
        down = list(maps)
        for i in reversed(range(len(self.down))):
            down[i] = self.down[i](maps[i], enlarge(down[i + 1], like=maps[i]))
        up = [down[0]]
        *inner, last = self.up
        for i, fusion in enumerate(inner, start=1):
            up.append(fusion(halve(up[-1]), down[i], maps[i]))
        return [*up, last(halve(up[-1]), maps[-1])]


@MODELS.register_module()
class BiFPN(BaseModule):
    """Maps of a backbone, and coarser ones pooled from its last, fused several times.

    Each is brought to one width by a 1x1 convolution and a norm before. A map is to have half the
    sides of the one before it, rounded up, as those of our backbones have.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        num_repeats: int = 2,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            in_channels: of the backbone's maps, finest first.
            num_outs: levels; those the backbone lacks are pooled from its coarsest map.
            norm_cfg: group norm of 32 groups if None.
            init_cfg: Xavier's, uniform, for all convolutions if None.

        Raises:
            InputError: fewer levels than maps, or too few to fuse.
        """
        super().__init__(
            init_cfg or dict(type="Xavier", layer="Conv2d", distribution="uniform", bias=0.0)
        )
        if num_outs < max(2, len(in_channels)):
            raise InputError(
                f"BiFPN: each of its maps becomes a level and two at least are fused, "
                f"num_outs={num_outs} for {len(in_channels)} maps is too few. Raise num_outs, or "
                "take fewer maps from the backbone (out_indices)."
            )
        norm_cfg = norm_cfg or dict(type="GN", num_groups=32)
        self.out_channels = out_channels
        self.num_outs = num_outs
        taken = [*in_channels, *[in_channels[-1]] * (num_outs - len(in_channels))]
        self.laterals = nn.ModuleList(
            ConvModule(channels, out_channels, 1, norm_cfg=norm_cfg, act_cfg=None)
            for channels in taken
        )
        self.repeats = nn.ModuleList(
            DownAndUp(num_outs, out_channels, norm_cfg) for _ in range(num_repeats)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(B, in_channels[i], ., .) of each map -> (B, out_channels, ., .) of each level."""
        levels = list(maps)
        while len(levels) < self.num_outs:
            levels.append(halve(levels[-1]))
        levels = [lateral(x) for lateral, x in zip(self.laterals, levels, strict=True)]
        for repeat in self.repeats:
            levels = repeat(levels)
        return tuple(levels)
