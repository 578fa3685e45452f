"""NAT (arXiv 2204.07143) and DiNAT (arXiv 2209.15001), as feature maps for a neck.

Read from the bottom: `DiNAT` is `NAT` with dilated windows. Weights carry the names of the authors'
dense-prediction code, and maps of any size are treated as there.
Letters: B images, H W positions in a column and a row, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.pyramid import Stage, Staged
from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.layers.residual import DropPath, Mlp, times
from swin_dense.ops.neighborhood_attention import neighborhood_attention, why_not
from swin_dense.registry import MODELS

STEM = 4  # pixels of an image that become one position of the first map
SCALE = 1e-5  # of the branches of sizes that have layer scales, at the start
# The paper's dilations for classification at 224 pixels (arXiv 2209.15001, table 5 and the code).
DILATIONS = ((1, 8), (1, 4), (1, 2), (1,))
Dilations = Sequence[Sequence[int]]


def _size(embed_dim: int, third: int, mlp_ratio: float, scale: float | None) -> dict[str, Any]:
    """Return a size by C of its first level and the blocks of its third."""
    heads = embed_dim // 32
    return {
        "embed_dim": embed_dim,
        "depths": (3, 4, third, 5),
        "num_heads": (heads, 2 * heads, 4 * heads, 8 * heads),
        "mlp_ratio": mlp_ratio,
        "layer_scale": scale,
    }


# The sizes of the papers, and one of ours for tests and laptops.
NANO: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (1, 2, 2, 1),
    "num_heads": (1, 2, 4, 8),
    "mlp_ratio": 3.0,
    "layer_scale": None,
}
NAT_SIZES: dict[str, dict[str, Any]] = {
    "nano": NANO,
    "mini": _size(64, 6, 3.0, None),
    "tiny": _size(64, 18, 3.0, None),
    "small": _size(96, 18, 2.0, SCALE),
    "base": _size(128, 18, 2.0, SCALE),
}
DINAT_SIZES: dict[str, dict[str, Any]] = {
    "nano": {**NANO, "dilations": ((1,), (1, 2), (2, 1), (1,))},
    "mini": {**_size(64, 6, 3.0, None), "dilations": DILATIONS},
    "tiny": {**_size(64, 18, 3.0, None), "dilations": DILATIONS},
    "small": {**_size(96, 18, 2.0, None), "dilations": DILATIONS},
    "base": {**_size(128, 18, 2.0, SCALE), "dilations": DILATIONS},
    "large": {**_size(192, 18, 2.0, None), "dilations": DILATIONS},
}


class NeighborhoodAttention(nn.Module):
    """Multi-head attention to the positions around each, with a learned bias for each distance."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        dilation: int,
        qkv_bias: bool,
        scale: float | None,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.dilation, self.scale = heads, window, dilation, scale
        self.rpb = nn.Parameter(torch.empty(heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.rpb, std=0.02)
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C): what each position finds around it, not yet projected."""
        height, width, channels = x.shape[1:]
        if reason := why_not(x, self.window):
            raise InputError(reason)
        span = self.window * self.dilation
        if height < span or width < span:
            # As the authors do: zeros behind the norm, which the projection makes its bias, and
            # which are looked at like any other position.
            below, right = max(span - height, 0), max(span - width, 0)
            qkv = self.qkv(F.pad(norm(x), (0, 0, 0, right, 0, below)))
        else:
            qkv = residual.norm_linear(x, norm, self.qkv)
        q, k, v = qkv.unflatten(-1, (3, self.heads, channels // self.heads)).unbind(3)
        out = neighborhood_attention(q, k, v, self.rpb, self.window, self.dilation, self.scale)
        return out[:, :height, :width].flatten(3)


class Block(nn.Module):
    """Attention to neighbours, then the MLP, each as a residual branch that is normed first."""

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        dilation: int,
        mlp_ratio: float,
        qkv_bias: bool,
        scale: float | None,
        drop_path: float,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = NeighborhoodAttention(channels, heads, window, dilation, qkv_bias, scale)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        for name in ("gamma1", "gamma2"):
            gamma = None if layer_scale is None else torch.full((channels,), layer_scale)
            self.register_parameter(name, None if gamma is None else nn.Parameter(gamma))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        found, proj = self.attn(x, self.norm1), self.attn.proj
        if self.gamma1 is None:
            x = residual.add_linear(x, found, proj, self.drop_path.draw(x))
            return residual.add_mlp(x, self.norm2, self.mlp, self.drop_path.draw(x))
        x = x + self.drop_path(times(proj(found), self.gamma1))
        return x + self.drop_path(times(self.mlp(self.norm2(x)), self.gamma2))


class Stem(nn.Module):
    """Halve the image twice."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, 2, padding=1),
            nn.Conv2d(channels // 2, channels, 3, 2, padding=1),
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, height, width) -> (B, H, W, C), each side a fourth, rounded up."""
        # Channels last: what permutes behind the convolutions then copies nothing.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Halving(nn.Module):
    """Halve a map, and double its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(channels, 2 * channels, 3, 2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@MODELS.register_module()
class NAT(Staged):
    """Neighborhood Attention Transformer for images of any size."""

    archs = NAT_SIZES
    no_weight_decay_keywords = ("rpb", "norm")
    stages_are = "levels"
    patch_size = STEM

    def __init__(
        self,
        arch: str = "tiny",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        mlp_ratio: float | None = None,
        layer_scale: float | None = None,
        kernel_size: int = 7,
        dilations: Dilations | None = None,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.2,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name; what follows changes it.
            embed_dim: C of the first level; it doubles from level to level.
            depths: blocks of each level.
            num_heads: attention heads of each level; they divide its C.
            mlp_ratio: hidden channels of an MLP as a multiple of C.
            layer_scale: what each branch is multiplied by at the start, a learned number for each
                channel; the sizes that have it start from 1e-5, and 0 takes it away.
            kernel_size: side of a window, in positions; odd.
            dilations: of the blocks of each level, how far apart the positions of a window lie;
                where there are fewer than blocks they begin again. (1, 28) is 1, 28, 1, ... A map
                smaller than kernel_size x dilation is padded.
            qkv_bias: whether the projection to q, k and v has a bias.
            qk_scale: factor on q; None for 1 / sqrt(C / heads).
            in_channels: channels of the image.
            drop_path_rate: share of images that lose a branch of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: levels whose maps are returned, in growing order.
            frozen_stages: what does not train: from 0 on the stem, then the first `frozen_stages`
                levels, each with its downsampling (the authors' 2 is our 1). The norms of the maps
                returned always train; what lies behind the last map is not computed and never
                trains.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(
            arch,
            embed_dim=embed_dim,
            depths=depths,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            layer_scale=layer_scale,
            dilations=dilations,
        )
        depths, heads = tuple(size["depths"]), tuple(size["num_heads"])
        embed_dim = size["embed_dim"]
        steps = size.get("dilations") or [(1,)] * len(depths)
        check_sizes(self._name, embed_dim, depths, heads, kernel_size, steps)
        super().__init__(
            stages=len(depths),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.embed_dim, self.depths = embed_dim, depths
        self.patch_embed = Stem(in_channels, embed_dim)
        self.levels: Any = nn.ModuleList()
        rates = iter(self.drop_path_rates(sum(depths)))
        for level, depth in enumerate(depths):
            channels = embed_dim * 2**level
            blocks = [
                Block(
                    channels,
                    heads[level],
                    kernel_size,
                    steps[level][number % len(steps[level])],
                    size["mlp_ratio"],
                    qkv_bias,
                    qk_scale,
                    next(rates),
                    size["layer_scale"] or None,
                )
                for number in range(depth)
            ]
            last = level == len(depths) - 1
            self.levels.append(Stage(blocks, None if last else Halving(channels)))
        for level, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{level}", nn.LayerNorm(channels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.freeze()

    @property
    def smallest_image(self) -> int:
        """Return the shortest side of an image, in pixels: smaller maps are padded."""
        return 1

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = ceil(height / out_stride)."""
        self.check_image(image)
        return self.maps_of(self.patch_embed(image))


@MODELS.register_module()
class DiNAT(NAT):
    """Dilated Neighborhood Attention Transformer: every second block sees far.

    Its dilations are made for the size of the images of a task: of the maps of 224 pixels here, and
    as large as windows still fit. A config for larger images states larger ones.
    """

    archs = DINAT_SIZES


def check_sizes(
    name: str,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    kernel_size: int,
    dilations: Dilations,
) -> None:
    """Refuse sizes that no NAT, DiNAT or DiNAT_s can have.

    Raises:
        InputError: with what came and the rule.
    """
    if len(depths) != len(num_heads) or min(depths, default=0) < 1:
        raise InputError(
            f"{name}: depths and num_heads have one number per level, depths at least 1; got "
            f"depths {tuple(depths)} and num_heads {tuple(num_heads)}. Give both the same length."
        )
    for level, heads in enumerate(num_heads):
        channels = embed_dim * 2**level
        if heads < 1 or channels < 2 or channels % heads:
            raise InputError(
                f"{name}: heads divide the channels; level {level} has {channels} channels "
                f"(embed_dim {embed_dim}) and {heads} heads. Change embed_dim or num_heads."
            )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(
            f"{name}: a window is an odd number of positions, so that it has a middle; got "
            f"kernel_size {kernel_size}. 7 is usual."
        )
    fitting = len(dilations) == len(depths) and all(
        0 < len(steps) <= depth and min(steps) >= 1
        for steps, depth in zip(dilations, depths, strict=True)
    )
    if not fitting:
        raise InputError(
            f"{name}: dilations are numbers from 1 for each level, at most as many as it has "
            f"blocks; got {dilations} for depths {tuple(depths)}. Give e.g. "
            f"{tuple((1, 2)[: min(depth, 2)] for depth in depths)}."
        )
