"""CSWin Transformer (arXiv 2107.00652): attention in stripes across the map, for a neck.

Read from the bottom: `CSWin` is all the rest of the project sees. Maps of any size are treated as
in the authors' dense-prediction code; the names of the weights are those of our other pyramids,
`cswin_weights.py` has the authors'.
Letters: B images, H W rows and columns of a map, C channels, D channels of a head, S stripes.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.pyramid import Stage, Staged, padding_to
from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.layers.residual import DropPath, Mlp
from swin_dense.ops.tracing import compiling
from swin_dense.registry import MODELS

STEM = 4  # pixels of an image that become one place of the first map
SPLIT = (1, 2, 7)  # sw of the paper; models fine-tuned at 384 pixels have 12 in the third stage


def _size(width: int, depths: tuple[int, ...], num_heads: tuple[int, ...]) -> dict[str, Any]:
    """Return a size by C of its first stage."""
    dims = tuple(width * 2**stage for stage in range(len(depths)))
    return {"dims": dims, "depths": depths, "num_heads": num_heads}


# The sizes of the paper (table 1) and of the authors' code, and one of ours for tests and laptops.
SIZES: dict[str, dict[str, Any]] = {
    "nano": _size(16, (1, 2, 2, 1), (2, 2, 4, 4)),
    "tiny": _size(64, (1, 2, 21, 1), (2, 4, 8, 16)),
    "small": _size(64, (2, 4, 32, 2), (2, 4, 8, 16)),
    "base": _size(96, (2, 4, 32, 2), (4, 8, 16, 32)),
    "large": _size(144, (2, 4, 32, 2), (6, 12, 24, 24)),
}


class StripeAttention(nn.Module):
    """Multi-head attention inside each stripe, plus what a 3x3 convolution makes of its values.

    That convolution tells places apart (section 3.3) and ends at the border of a stripe. Stripes
    that reach over the border of the map, by the same share on both sides, find zeros there:
    behind the projection and without a mask, so a place outside has the logit 0 in the softmax.
    """

    def __init__(self, channels: int, heads: int, rows: int | None, columns: int | None) -> None:
        """
        Args:
            rows: of a stripe; None for all.
            columns: of a stripe; None for all.
        """
        super().__init__()
        self.heads, self.rows, self.columns = heads, rows, columns
        self.get_v = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, H, W, 3, C) -> (B, H, W, C)."""
        batch, height, width, _, channels = qkv.shape
        below, right = (
            0 if stripe is None else padding_to(side, stripe)
            for side, stripe in ((height, self.rows), (width, self.columns))
        )
        top, left = below // 2, right // 2
        if compiling() or below or right:
            qkv = F.pad(qkv, (0, 0, 0, 0, left, right - left, top, below - top))
        high, wide = height + below, width + right
        rows, columns = self.rows or high, self.columns or wide
        down, along = high // rows, wide // columns  # one of them is 1
        count = batch * down * along

        stripes = _shaped(qkv, batch, down, rows, along, columns, 3 * channels).transpose(2, 3)
        stripes = _shaped(stripes, count, rows, columns, 3 * channels)
        heads = (self.heads, channels // self.heads)
        tokens = _shaped(stripes, count, rows * columns, 3, *heads)
        q, k, v = tokens.permute(2, 0, 3, 1, 4)  # B * S, heads, places, D
        found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        found = _shaped(found, count, rows, columns, channels)
        found = found + self._places(stripes[..., 2 * channels :])
        found = _shaped(found, batch, down, along, rows, columns, channels).transpose(2, 3)
        return _middle(_shaped(found, batch, high, wide, channels), top, height, left, width)

    def _places(self, x: Tensor) -> Tensor:
        """(B * S, h, w, C) -> (B * S, h, w, C): the convolution of the values."""
        weight, padding = self.get_v.weight, (1, 1)
        # Of a stripe one place wide the outer columns of the kernel see the border alone.
        if self.columns == 1:
            weight, padding = weight[..., 1:2], (1, 0)
        if self.rows == 1:
            weight, padding = weight[..., 1:2, :], (0, 1)
        maps = x.permute(0, 3, 1, 2)
        out = F.conv2d(maps, weight, self.get_v.bias, padding=padding, groups=maps.shape[1])
        return out.permute(0, 2, 3, 1)


def _shaped(x: Tensor, *sizes: int) -> Tensor:
    """Return x in another shape."""
    if not torch.compiler.is_compiling():
        return x.reshape(sizes)
    # The form that asks for no proof about sizes that are symbolic. A real tensor may lie otherwise
    # than the one it was traced with, so nothing but a copy is known to be contiguous.
    strides = [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
    return x.clone(memory_format=torch.contiguous_format).as_strided(sizes, strides)


def _middle(x: Tensor, top: int, height: int, left: int, width: int) -> Tensor:
    """(B, ..., ..., C) -> (B, height, width, C), from a row and a column on."""
    if not torch.compiler.is_compiling():
        return x[:, top : top + height, left : left + width]
    # Slices would ask whether they lie inside, which no one can tell of all sizes.
    for axis, first, side in ((1, top, height), (2, left, width)):
        x = x.index_select(axis, torch.arange(side, device=x.device) + first)
    return x


class Block(nn.Module):
    """Attention in stripes, then a perceptron for each place, both as residual branches.

    Half the heads look down stripes of columns, the others along stripes of rows.
    """

    def __init__(
        self, channels: int, heads: int, split: int | None, mlp_ratio: float, drop_path: float
    ) -> None:
        """
        Args:
            split: places across a stripe; None for attention to the whole map.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        stripes = ((None, None),) if split is None else ((None, split), (split, None))
        self.attns = nn.ModuleList(
            StripeAttention(channels // len(stripes), heads // len(stripes), *stripe)
            for stripe in stripes
        )
        self.proj = nn.Linear(channels, channels)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        qkv = residual.norm_linear(x, self.norm1, self.qkv).unflatten(-1, (3, -1))
        halves = qkv.chunk(len(self.attns), -1)
        found = [attention(half) for attention, half in zip(self.attns, halves, strict=True)]
        x = residual.add_linear(x, torch.cat(found, -1), self.proj, self.drop_path.draw(x))
        return residual.add_mlp(x, self.norm2, self.mlp, self.drop_path.draw(x))


class Stem(nn.Module):
    """Bring the image to a fourth of its size."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 7, STEM, padding=2)
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, height, width) -> (B, H, W, C), H = floor((height + 1) / 4)."""
        # Channels last: what permutes behind the convolution then copies nothing.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Merging(nn.Module):
    """Halve a map, and bring it to the channels of the next stage."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, 2, padding=1)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), C')."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@MODELS.register_module()
class CSWin(Staged):
    """CSWin Transformer for images of any size; its last stage attends to the whole map."""

    archs = SIZES
    patch_size = STEM

    def __init__(
        self,
        arch: str = "tiny",
        dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        num_heads: Sequence[int] | None = None,
        split_size: Sequence[int] = SPLIT,
        mlp_ratio: float = 4.0,
        in_channels: int = 3,
        drop_path_rate: float = 0.3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "tiny" to "large"; what follows changes it.
            dims: C of each stage.
            depths: blocks of each stage.
            num_heads: attention heads of each stage; even where a half of them looks down and the
                other along, which is everywhere but in the last stage.
            split_size: places across a stripe, for each stage but the last. Weights of 384 pixels
                were trained with (1, 2, 12).
            mlp_ratio: hidden channels of an MLP as a multiple of C.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose a branch of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train: from 0 on the stem, then the first `frozen_stages`
                stages, each with the merging behind it. The norms of the maps returned always
                train; what lies behind the last map is not computed and never trains.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(arch, dims=dims, depths=depths, num_heads=num_heads)
        self.dims, self.depths = tuple(size["dims"]), tuple(size["depths"])
        heads, splits = tuple(size["num_heads"]), tuple(split_size)
        _check(self.dims, self.depths, heads, splits)
        super().__init__(
            stages=len(self.depths),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.patch_embed = Stem(in_channels, self.dims[0])
        rates = iter(self.drop_path_rates(sum(self.depths)))
        self.layers: Any = nn.ModuleList()
        for stage, (channels, depth) in enumerate(zip(self.dims, self.depths, strict=True)):
            last = stage == len(self.depths) - 1
            split = None if last else splits[stage]
            blocks = [
                Block(channels, heads[stage], split, mlp_ratio, next(rates)) for _ in range(depth)
            ]
            merging = None if last else Merging(channels, self.dims[stage + 1])
            self.layers.append(Stage(blocks, merging))
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map."""
        return tuple(self.dims[i] for i in self.out_indices)

    @property
    def smallest_image(self) -> int:
        """Return the side, in pixels, of which the stem leaves one place."""
        return 3

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W).

        H is floor((height + 1) / 4) in the first and half of the one before, rounded up, in others.
        """
        self.check_image(image)
        return self.maps_of(self.patch_embed(image))


def _check(
    dims: Sequence[int], depths: Sequence[int], heads: Sequence[int], splits: Sequence[int]
) -> None:
    """Refuse sizes that no CSWin can have.

    Raises:
        InputError: with what came and the rule.
    """
    if not len(dims) == len(depths) == len(heads) or min((*dims, *depths), default=0) < 1:
        raise InputError(
            "CSWin: dims, depths and num_heads have one number for each stage, at least 1; got "
            f"dims {tuple(dims)}, depths {tuple(depths)} and num_heads {tuple(heads)}. Give all "
            "the same length."
        )
    for stage, (channels, count) in enumerate(zip(dims, heads, strict=True)):
        halves = 1 if stage == len(dims) - 1 else 2
        if count < 1 or count % halves or channels % count:
            raise InputError(
                "CSWin: heads divide the channels, and their number is even before the last "
                f"stage; stage {stage} has {channels} channels and {count} heads. Change dims or "
                "num_heads."
            )
    if len(splits) != len(dims) - 1 or min(splits, default=1) < 1:
        raise InputError(
            "CSWin: split_size has a number from 1 for each stage but the last, which attends to "
            f"the whole map; got {tuple(splits)} for {len(dims)} stages. {SPLIT} is usual."
        )
