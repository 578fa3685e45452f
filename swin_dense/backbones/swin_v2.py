"""Swin Transformer, version 2 (arXiv 2111.09883), as feature maps for a neck.

Read from the bottom: `SwinV2` is all the rest of the project sees. Weights carry the names of the
authors' classification code, whose outputs these are at the sizes it takes.

Against version 1: a branch is normed after it is computed and before it is added; logits are
cosines times a learned scale; the bias of a pair of places is a small MLP of their distance, on a
logarithmic scale, so that weights move between sizes of windows.

Letters: B images, H W tokens in a column and a row, C channels, L tokens of a window.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.pyramid import Pyramid, join_2x2, relative_position_index
from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.layers.residual import DropPath, Mlp
from swin_dense.ops.window_attention import window_attention
from swin_dense.registry import MODELS

# The sizes of the paper (section 3.5); H and G norm the main branch after every sixth block.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)},  # ours
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
    "huge": {
        "embed_dim": 352,
        "depths": (2, 2, 18, 2),
        "num_heads": (11, 22, 44, 88),
        "extra_norm_every": 6,
    },
    "giant": {
        "embed_dim": 512,
        "depths": (2, 2, 42, 4),
        "num_heads": (16, 32, 64, 128),
        "extra_norm_every": 6,
    },
}
_LARGEST_SCALE = math.log(100.0)  # of the logits, before the exponential
_CPB_HIDDEN = 512
_CPB_RANGE = 16.0  # position biases lie between 0 and this


class PatchMerging(nn.Module):
    """Join 2x2 tokens into one of twice the channels, normed afterwards."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        return self.norm(self.reduction(join_2x2(x)))


def log_distances(window: int, pretrained_window: int) -> Tensor:
    """((2 * window - 1) ** 2, 2): down and across between two places of a window, log-spaced.

    sign(d) log2(1 + 8 |d|) / 3, d the distance as a share of the largest one in the window, or in
    the window of the pre-training, which is then what 1 means (section 3.3, eq. 4).
    """
    largest = max((pretrained_window or window) - 1, 1)
    along = torch.arange(-(window - 1), window, dtype=torch.float32) * (8 / largest)
    along = along.sign() * (along.abs() + 1).log2() / math.log2(8)
    return torch.stack(torch.meshgrid(along, along, indexing="ij"), -1).flatten(0, 1)


class WindowAttention(nn.Module):
    """Multi-head cosine attention within windows, its bias a function of the distance."""

    relative_coords_table: Tensor
    relative_position_index: Tensor

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        shift: int,
        qkv_bias: bool,
        pretrained_window: int,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.pretrained_window = pretrained_window
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.cpb_mlp = nn.Sequential(
            nn.Linear(2, _CPB_HIDDEN), nn.ReLU(), nn.Linear(_CPB_HIDDEN, heads, bias=False)
        )
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(channels)) if qkv_bias else None
        self.proj = nn.Linear(channels, channels)
        table, index = log_distances(window, pretrained_window), relative_position_index(window)
        self.register_buffer("relative_coords_table", table, persistent=False)
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, norm: nn.Module, factor: Tensor | None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C): x and what it finds in itself, normed, times `factor`."""
        parts = (3, self.heads, x.shape[-1] // self.heads)
        bias = self.qkv_bias()
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, parts)
        # Tokens outside the map are zeros, so all the projection leaves of them is its bias.
        pad_qkv = qkv.new_zeros(parts) if bias is None else bias.view(parts)
        window, shift = self.window, self.shift
        # As the authors have it: a map that is no larger than a window is cut into smaller ones.
        smallest = min(x.shape[1], x.shape[2])
        if smallest <= window:
            window, shift = smallest, 0
        found = window_attention(
            qkv, self.position_bias(window), pad_qkv, window, shift, self.scale(), cosine=True
        )
        return residual.add_normed_linear(x, found, self.proj, norm, factor)

    def qkv_bias(self) -> Tensor | None:
        """Return the biases of q, k and v in one, that of k always 0; None without."""
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])

    def scale(self) -> Tensor:
        """(heads,): what cosines are multiplied by, at most 100; in float32."""
        return self.logit_scale.float().clamp(max=_LARGEST_SCALE).exp().flatten()

    def position_bias(self, window: int) -> Tensor:
        """Return the bias of all pairs of tokens of a window this large: (heads, L, L), float32."""
        table, index = self.relative_coords_table, self.relative_position_index
        if window != self.window:
            table = log_distances(window, self.pretrained_window).to(table.device)
            index = relative_position_index(window).to(index.device)
        first, _, second = self.cpb_mlp
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        with torch.autocast(table.device.type, enabled=False):
            hidden = F.linear(table.float(), first.weight.float(), first.bias.float()).relu()
            rows = _CPB_RANGE * F.linear(hidden, second.weight.float()).sigmoid()
        return rows.index_select(0, index.flatten()).unflatten(0, index.shape).permute(2, 0, 1)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        # The authors' files carry these tables; they follow from the window, so ours stay.
        for name in ("relative_position_index", "relative_coords_table"):
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SwinBlock(nn.Module):
    """Attention within windows, then the MLP, each as a residual branch that is normed last."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        shift: int,
        mlp_ratio: float,
        qkv_bias: bool,
        pretrained_window: int,
        drop_path: float,
        extra_norm: bool,
    ) -> None:
        super().__init__()
        self.attn = WindowAttention(channels, heads, window, shift, qkv_bias, pretrained_window)
        self.norm1 = nn.LayerNorm(channels)
        self.drop_path = DropPath(drop_path)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels) if extra_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = self.attn(x, self.norm1, self.drop_path.draw(x))
        x = residual.add_normed_mlp(x, self.mlp, self.norm2, self.drop_path.draw(x))
        return self.norm3(x)


@MODELS.register_module()
class SwinV2(Pyramid):
    """Swin Transformer V2 for images of any size.

    A map whose sides are no multiples of the window is filled up at the bottom and the right with
    zeros in front of the projection, as in version 1: positions outside carry the projection's
    bias, and are looked at. Where a map's shorter side is at most a window, windows are as small
    as that side and are not shifted, as in the authors' code; so at very small sizes an image is
    treated a little differently from the same image with a border.

    """

    archs = SIZES
    no_weight_decay_keywords = ("absolute_pos_embed", "cpb_mlp", "logit_scale", "norm")

    def __init__(
        self,
        arch: str = "tiny",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: int = 8,
        pretrained_window_sizes: Sequence[int] = (0, 0, 0, 0),
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        extra_norm_every: int | None = None,
        patch_size: int = 4,
        in_channels: int = 3,
        ape: bool = False,
        pretrain_img_size: int = 256,
        patch_norm: bool = True,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "tiny" to "giant"; what follows changes it.
            embed_dim: C of the first stage; it doubles from stage to stage.
            depths: blocks of each stage; every second block shifts its windows.
            num_heads: attention heads of each stage; they divide its C.
            window_size: side of a window, in tokens.
            pretrained_window_sizes: side of each stage's windows where the weights come from, if
                other than now; 0 for the same. Distances are then measured in those windows.
            mlp_ratio: hidden channels of an MLP as a multiple of C.
            qkv_bias: whether the projection to q and v has a bias (that to k has none).
            extra_norm_every: norm the main branch after every so many blocks of a stage; 0 never.
            patch_size: side of a token of the first stage, in pixels.
            in_channels: channels of the image.
            ape: add a learned embedding of the absolute place, resized to the map.
            pretrain_img_size: side of the image that embedding is kept for, in pixels.
            patch_norm: norm the tokens after the first projection.
            drop_path_rate: share of images that lose a branch of the last block in training;
                it grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train, as in `Swin`.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(
            arch,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            extra_norm_every=extra_norm_every,
        )
        every = size.pop("extra_norm_every", 0)
        stages = len(size["depths"])
        before = tuple(pretrained_window_sizes)
        if min(before, default=0) < 0 or (any(before) and len(before) != stages):
            raise InputError(
                "SwinV2: pretrained_window_sizes has one number for each stage, 0 where nothing "
                f"changes; got {before} for {stages} stages."
            )
        if every < 0:
            raise InputError(
                f"SwinV2: extra_norm_every counts blocks; got {every}. 0 adds no norm."
            )

        def block(stage: int, channels: int, number: int, drop_path: float) -> SwinBlock:
            return SwinBlock(
                channels,
                size["num_heads"][stage],
                window_size,
                shift=window_size // 2 if number % 2 else 0,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                pretrained_window=before[stage] if any(before) else 0,
                drop_path=drop_path,
                extra_norm=every > 0 and (number + 1) % every == 0,
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

    def _draw_weights(self) -> None:
        """Draw as version 1 does, but start every branch at nothing: its last norm is 0."""
        super()._draw_weights()
        for module in self.modules():
            if isinstance(module, SwinBlock):
                for norm in (module.norm1, module.norm2):
                    nn.init.zeros_(norm.weight)
                    nn.init.zeros_(norm.bias)
