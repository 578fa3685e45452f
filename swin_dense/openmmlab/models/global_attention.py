"""A last block in which every token of the coarsest map sees every other one.

HTC++ of the Swin paper (arXiv 2103.14030, A2.2) has "an extra global self-attention layer appended
at the output of last stage". The paper says no more of it; what its numbers leave is one ordinary
block, attention and MLP, without an embedding of places: see configs/_base_/htc.py.
Letters: B images, H W tokens in a column and a row, N = H * W of them, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.layers.residual import DropPath, Mlp
from swin_dense.registry import MODELS


class FullAttention(nn.Module):
    """Multi-head attention among all tokens of an image."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, norm: nn.Module, factor: Tensor | None) -> Tensor:
        """(B, N, C) -> (B, N, C): x and what it finds in its normed self, times `factor`."""
        qkv = residual.norm_linear(x, norm, self.qkv)
        qkv = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, B, heads, N, C
        out = F.scaled_dot_product_attention(*qkv.unbind()).transpose(1, 2).flatten(2)
        return residual.add_linear(x, out, self.proj, factor)


@MODELS.register_module()
class GlobalAttention(BaseModule):
    """The first part of a neck: the last map goes through one block, the others as they are."""

    def __init__(
        self,
        in_channels: Sequence[int],
        head_channels: int = 32,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.2,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            in_channels: C of each map.
            head_channels: channels of one attention head; they divide the C of the last map.
            mlp_ratio: hidden channels of the MLP as a multiple of C.
            drop_path_rate: share of images that lose a branch of the block in training.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        super().__init__(init_cfg)
        _check(in_channels, head_channels, drop_path_rate)
        self.in_channels = self.out_channels = tuple(in_channels)
        channels = self.in_channels[-1]
        self.norm1 = nn.LayerNorm(channels)
        self.attn = FullAttention(channels, channels // head_channels)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as the blocks before it are drawn
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, H, W) -> maps of the same shapes."""
        *others, last = maps
        self._check_maps(maps)
        x = last.flatten(2).transpose(1, 2)
        x = self.attn(x, self.norm1, self.drop_path.draw(x))
        x = residual.add_mlp(x, self.norm2, self.mlp, self.drop_path.draw(x))
        return (*others, x.transpose(1, 2).unflatten(2, last.shape[2:]))

    def _check_maps(self, maps: Sequence[Tensor]) -> None:
        got = [m.shape[1] for m in maps]
        if got != list(self.in_channels):
            raise InputError(
                f"GlobalAttention: maps have in_channels={list(self.in_channels)}, got {got}. "
                "Leave in_channels out of the config, it follows from the backbone."
            )


def _check(in_channels: Any, head_channels: int, drop_path_rate: float) -> None:
    if not isinstance(in_channels, Sequence) or not in_channels:
        raise InputError(
            "GlobalAttention: in_channels has one number for each map of the backbone, got "
            f"{in_channels!r}. Leave it out of the config, it follows from the backbone."
        )
    if head_channels < 1 or in_channels[-1] % head_channels:
        raise InputError(
            f"GlobalAttention: head_channels divide the channels of the last map, "
            f"{in_channels[-1]}; got {head_channels}. 32 is that of Swin's heads."
        )
    if not 0 <= drop_path_rate < 1:
        raise InputError(
            f"GlobalAttention: drop_path_rate is a share from 0 to below 1; got {drop_path_rate}. "
            "Give it that of the backbone."
        )
