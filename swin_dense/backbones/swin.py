"""Swin Transformer, version 1 (arXiv 2103.14030), as feature maps for a neck.

Read from the bottom: `Swin` is all the rest of the project sees. Weights carry the names of the
authors' dense-prediction code, and maps of any size are treated as there.
Letters: B images, H W tokens in a column and a row, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones.pyramid import Pyramid, join_2x2, relative_position_index
from swin_dense.layers import residual
from swin_dense.layers.residual import DropPath, Mlp
from swin_dense.ops.window_attention import window_attention
from swin_dense.registry import MODELS

# The sizes of the paper. Anything else, such as window_size=12, is a change to one of them.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},  # ours
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}


class PatchMerging(nn.Module):
    """Join 2x2 tokens into one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        return residual.norm_linear(join_2x2(x), self.norm, self.reduction)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each difference of places."""

    relative_position_index: Tensor

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        shift: int,
        qkv_bias: bool,
        scale: float | None,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.scale = heads, window, shift, scale
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        index = relative_position_index(window)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, norm: nn.Module, factor: Tensor | None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C): x and what it finds in its normed self, times `factor`."""
        parts = (3, self.heads, x.shape[-1] // self.heads)
        qkv = residual.norm_linear(x, norm, self.qkv).unflatten(-1, parts)
        # Tokens outside the map are zeros, so all the projection leaves of them is its bias.
        pad_qkv = qkv.new_zeros(parts) if self.qkv.bias is None else self.qkv.bias.view(parts)
        bias = self.position_bias()
        out = window_attention(qkv, bias, pad_qkv, self.window, self.shift, self.scale)
        return residual.add_linear(x, out, self.proj, factor)

    def position_bias(self) -> Tensor:
        """Return the bias of each pair of tokens of a window, out of the table: (heads, L, L)."""
        index = self.relative_position_index
        rows = self.relative_position_bias_table.index_select(0, index.flatten())
        return rows.unflatten(0, index.shape).permute(2, 0, 1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        # The authors' files carry this index; it follows from the window, so ours stays.
        state_dict.pop(prefix + "relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SwinBlock(nn.Module):
    """Attention within windows, then the MLP, each as a residual branch that is normed first."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        scale: float | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift, qkv_bias, scale)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self.attn(x, self.norm1, self.drop_path.draw(x))
        return residual.add_mlp(x, self.norm2, self.mlp, self.drop_path.draw(x))


@MODELS.register_module()
class Swin(Pyramid):
    """Swin Transformer V1 for images of any size."""

    archs = SIZES
    no_weight_decay_keywords = ("absolute_pos_embed", "relative_position_bias_table", "norm")

    def __init__(
        self,
        arch: str = "tiny",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        patch_size: int = 4,
        in_channels: int = 3,
        ape: bool = False,
        pretrain_img_size: int = 224,
        patch_norm: bool = True,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "tiny" to "large"; what follows changes it.
            embed_dim: C of the first stage; it doubles from stage to stage.
            depths: blocks of each stage; every second block shifts its windows.
            num_heads: attention heads of each stage; they divide its C.
            window_size: side of a window, in tokens.
            mlp_ratio: hidden channels of an MLP as a multiple of C.
            qkv_bias: whether the projection to q, k and v has a bias.
            qk_scale: factor on q; None for 1 / sqrt(C / heads).
            patch_size: side of a token of the first stage, in pixels.
            in_channels: channels of the image.
            ape: add a learned embedding of the absolute place, resized to the map.
            pretrain_img_size: side of the image that embedding is kept for, in pixels.
            patch_norm: norm the tokens after the first projection.
            drop_path_rate: share of images that lose a branch of the last block in training;
                it grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train, counted as the authors do: from 0 on the patch
                embedding, from 1 on also the absolute place embedding, from 2 on also the first
                `frozen_stages - 1` stages, each with its downsampling. The norms of the maps
                returned always train. (mmdet counts otherwise: its 1 is our 2.) What lies behind
                the last map returned is not computed, so it never trains.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(arch, embed_dim=embed_dim, depths=depths, num_heads=num_heads)

        def block(stage: int, channels: int, number: int, drop_path: float) -> SwinBlock:
            return SwinBlock(
                channels,
                size["num_heads"][stage],
                window_size,
                shift=window_size // 2 if number % 2 else 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                scale=qk_scale,
                drop_path=drop_path,
            )

        super().__init__(
            block,
            PatchMerging,
            **size,
            window_size=window_size,
            patch_size=patch_size,
            in_channels=in_channels,
            ape=ape,
            pretrain_img_size=pretrain_img_size,
            patch_norm=patch_norm,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
