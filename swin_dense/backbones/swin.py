"""Swin Transformer, version 1 (arXiv 2103.14030), as feature maps for a neck.

Read from the bottom: `Swin` is all the rest of the project sees. Weights carry the names of the
authors' dense-prediction code, and maps of any size are treated as there.
Letters: B images, H W tokens in a column and a row, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin_dense.backbones import residual
from swin_dense.backbones.residual import DropPath, Mlp
from swin_dense.errors import InputError
from swin_dense.ops.window_attention import window_attention
from swin_dense.registry import MODELS

# The sizes of the paper. Anything else, such as window_size=12, is a change to one of them.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}


def preset(name: str) -> dict[str, Any]:
    """The constructor arguments of a size of the paper: tiny, small, base or large."""
    if name not in PRESETS:
        raise InputError(f"Swin: no preset is called {name!r}. Choose from {', '.join(PRESETS)}.")
    return dict(PRESETS[name])


def lacking(size: int, multiple: int) -> int:
    """What a size lacks to a multiple; in this form their sum stays simple when it is symbolic."""
    return (size + multiple - 1) // multiple * multiple - size


class PatchEmbed(nn.Module):
    """Cut the image into patches, one token each."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int, normed: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim) if normed else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, height, width) -> (B, H, W, C), patches at the border filled with 0."""
        height, width = image.shape[-2:]
        below, right = lacking(height, self.patch_size), lacking(width, self.patch_size)
        # A traced program serves many sizes: it may not ask about this one.
        if torch.compiler.is_compiling() or below or right:
            image = F.pad(image, (0, right, 0, below))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Join 2x2 tokens into one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        height, width = x.shape[1:3]
        below, right = lacking(height, 2), lacking(width, 2)
        if torch.compiler.is_compiling() or below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        # The order the weights expect: down the left column of the four, then down the right one.
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return residual.norm_linear(x, self.norm, self.reduction)


def relative_position_index(window: int) -> Tensor:
    """(L, L) rows of the bias table, one for each difference of places in a window.

    Tables written elsewhere depend on this order: rows of the difference first, both counted
    from -(window - 1), query minus key.
    """
    place = torch.arange(window)
    row, column = place.repeat_interleave(window), place.repeat(window)
    down = row[:, None] - row + window - 1
    across = column[:, None] - column + window - 1
    return down * (2 * window - 1) + across


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
        """The table spread over all pairs of tokens of a window: (heads, L, L)."""
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


class Stage(nn.Module):
    """Blocks at one resolution; `downsample` leads to the next and is None in the last stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor, with_cp: bool) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), without `downsample`."""
        for block in self.blocks:
            if with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


@MODELS.register_module()
class Swin(BaseModule):
    """Swin Transformer V1 for images of any size.

    Attributes:
        out_channels: C of each map returned.
        out_strides: side of one token of each map returned, in input pixels.
        no_weight_decay_keywords: a parameter with one of these in its name is not decayed.
    """

    no_weight_decay_keywords = ("absolute_pos_embed", "relative_position_bias_table", "norm")

    def __init__(
        self,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
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
        super().__init__(init_cfg)
        _check_sizes(embed_dim, depths, num_heads, window_size, patch_size, drop_path_rate)
        _check_choices(len(depths), out_indices, frozen_stages)
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.out_indices = tuple(out_indices)
        self.out_channels = tuple(embed_dim * 2**i for i in out_indices)
        self.out_strides = tuple(patch_size * 2**i for i in out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim, patch_norm)
        side = pretrain_img_size // patch_size
        self.absolute_pos_embed = (
            nn.Parameter(torch.empty(1, embed_dim, side, side)) if ape else None
        )
        self.layers = nn.ModuleList()
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        for stage, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            channels = embed_dim * 2**stage
            blocks = [
                SwinBlock(
                    channels,
                    heads,
                    window=window_size,
                    shift=window_size // 2 if block % 2 else 0,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    scale=qk_scale,
                    drop_path=next(rates),
                )
                for block in range(depth)
            ]
            last = stage == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else PatchMerging(channels)))
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))

        self._draw_weights()
        self._freeze()

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "Swin":
        """A size of the paper, tiny, small, base or large, with other arguments as given."""
        return cls(**{**preset(name), **overrides})

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = ceil(height / out_stride).

        The maps are in the memory format torch.channels_last.
        """
        self._check_image(image)
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            place = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + place.permute(0, 2, 3, 1)

        maps = []
        for index, layer in enumerate(self.layers):
            x = layer(x, self.with_cp)
            if index in self.out_indices:
                norm = self.get_submodule(f"norm{index}")
                maps.append(norm(x).permute(0, 3, 1, 2))
            if index == self.out_indices[-1]:
                break
            x = self.get_submodule(f"layers.{index}.downsample")(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> "Swin":
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.patch_embed)
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
        frozen += self.layers[: max(self.frozen_stages - 1, 0)]
        # Parameters without a gradient would stop a distributed run.
        last = self.out_indices[-1]
        frozen += [m for m in (self.layers[last].downsample, *self.layers[last + 1 :]) if m]
        for module in frozen:
            module.eval().requires_grad_(False)

    def _draw_weights(self) -> None:
        """Random weights as the authors draw them; a bias table draws itself."""
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _check_image(self, image: Tensor) -> None:
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise InputError(
                f"Swin: images come as (B, {self.in_channels}, height, width), this has shape "
                f"{tuple(image.shape)}. Set in_channels to what the data has, or mend the data."
            )
        if min(image.shape[-2:]) < self.patch_size:
            height, width = image.shape[-2:]
            raise InputError(
                f"Swin: an image of {height}x{width} pixels is a size smaller than one patch. The "
                f"smallest allowed is {self.patch_size}x{self.patch_size}; resize or drop it."
            )


def _check_sizes(
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    patch_size: int,
    drop_path_rate: float,
) -> None:
    if len(depths) != len(num_heads) or min(depths, default=0) < 1:
        raise InputError(
            f"Swin: depths and num_heads have one number per stage, depths at least 1; got depths "
            f"{tuple(depths)} and num_heads {tuple(num_heads)}. Give both the same length."
        )
    for stage, heads in enumerate(num_heads):
        channels = embed_dim * 2**stage
        if heads < 1 or channels < 1 or channels % heads:
            raise InputError(
                f"Swin: heads divide the channels; stage {stage} has {channels} channels "
                f"(embed_dim {embed_dim}) and {heads} heads. Change embed_dim or num_heads."
            )
    if window_size < 1 or patch_size < 1:
        raise InputError(
            f"Swin: window_size and patch_size are at least 1; got {window_size} and "
            f"{patch_size}. The paper has 7 and 4."
        )
    if not 0 <= drop_path_rate < 1:
        raise InputError(
            f"Swin: drop_path_rate is a share from 0 to below 1; got {drop_path_rate}. "
            "Usual values are 0.1 to 0.5."
        )


def _check_choices(stages: int, out_indices: Sequence[int], frozen_stages: int) -> None:
    wanted = list(out_indices)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0 or wanted[-1] >= stages:
        raise InputError(
            f"Swin: out_indices are stages from 0 to {stages - 1}, in growing order, each once; "
            f"got {tuple(wanted)}. Try {tuple(range(stages))}."
        )
    if not -1 <= frozen_stages <= stages + 1:
        raise InputError(
            f"Swin: frozen_stages is -1 (all trains) to {stages + 1} (all {stages} stages "
            f"frozen); got {frozen_stages}. Freeze the first n stages with n + 1."
        )
