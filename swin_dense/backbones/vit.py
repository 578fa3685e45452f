"""Plain vision transformers (arXiv 2010.11929) for dense prediction.

ViTDet (arXiv 2203.16527): windows with a few global blocks and decomposed relative positions. BEiT
(arXiv 2106.08254): tables of biases and a class token. MAE, iBOT, DINOv2, SAM: weights of the same
blocks. Read from the bottom: `ViT` is all the rest of the project sees; what is known of weights
stands in `vit_weights.py`. They carry the names of the authors of MAE and ViTDet.
Letters: B images, H W rows and columns of tokens, L tokens, P tokens that are no place (class,
registers), C channels, h heads, d channels of a head.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.backbone import Backbone
from swin_dense.backbones.pyramid import padding_to
from swin_dense.checkpoints.resizing import CLASS_ROWS
from swin_dense.errors import InputError
from swin_dense.layers import residual
from swin_dense.ops.decomposed_attention import decomposed_attention
from swin_dense.ops.tracing import compiling
from swin_dense.registry import MODELS

# The sizes of arXiv 2010.11929 (table 1) and 2012.12877, and one of ours for tests and laptops.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"embed_dim": 48, "depth": 4, "num_heads": 3, "output_norm": True},
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14},
}
POSITIONS = ("none", "decomposed", "table")
EPS = 1e-6  # of every norm


class PatchEmbed(nn.Module):
    """Cut the image into patches, one token each; what is left over is dropped."""

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, height, width) -> (B, H, W, C)."""
        return self.proj(image).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Attend from all tokens to all, with what is known of where they lie.

    Decomposed relative positions (arXiv 2112.01526) add to a logit a term for the rows between
    query and key and one for the columns, both read off the query.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        bias: bool,
        positions: str,
        sides: tuple[int, int],
        class_rows: bool,
    ) -> None:
        """
        Args:
            positions: one of POSITIONS.
            sides: rows and columns of the window, or of the image, that the tables are for.
            class_rows: whether a table has rows for a class token.
        """
        super().__init__()
        self.heads, self.positions, self.sides = heads, positions, sides
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        if positions == "decomposed":
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * sides[0] - 1, channels // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * sides[1] - 1, channels // heads))
        if positions == "table":
            rows = (2 * sides[0] - 1) * (2 * sides[1] - 1) + CLASS_ROWS * class_rows
            self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, heads))
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, size: tuple[int, int], extra: int = 0) -> Tensor:
        """(B, P + H * W, C) -> the same, not yet projected.

        Args:
            size: H and W.
            extra: P.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.positions == "decomposed":
            rows, columns = self._terms(q, size)
            out = decomposed_attention(q, k, v, rows, columns, q.shape[-1] ** -0.5)
        else:
            bias = self._table(size, extra).to(q.dtype) if self.positions == "table" else None
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out.transpose(1, 2).flatten(2)

    def _terms(self, q: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(B, h, H * W, d) -> (B, h, H * W, H), (B, h, H * W, W): what rows and columns add."""
        q = q.unflatten(2, size)
        down = _between(self.rel_pos_h, size[0], self.sides[0]).to(q.dtype)
        across = _between(self.rel_pos_w, size[1], self.sides[1]).to(q.dtype)
        rows = torch.einsum("bhyxd,ykd->bhyxk", q, down)
        columns = torch.einsum("bhyxd,xkd->bhyxk", q, across)
        rows, columns = torch.cat([rows, columns], -1).flatten(2, 3).split(size, -1)
        return rows, columns

    def _table(self, size: tuple[int, int], extra: int) -> Tensor:
        """Return what the table adds to the logits: (1, h, L, L)."""
        height, width = size
        table = self.relative_position_bias_table
        rows, columns = (2 * side - 1 for side in self.sides)
        grid = table[: rows * columns].T.unflatten(1, (rows, columns))[None]
        if compiling() or size != self.sides:
            grid = F.interpolate(grid, size=(2 * height - 1, 2 * width - 1), mode="bicubic")
        grid = grid[0]
        down, across = _difference(height, table), _difference(width, table)
        bias = grid[:, down[:, None, :, None], across[None, :, None, :]].flatten(3).flatten(1, 2)
        if extra:
            to_place, to_class, itself = table[rows * columns :, :, None, None].unbind(0)
            top = torch.cat([itself, to_place.expand(-1, 1, height * width)], 2)
            bias = torch.cat([to_class.expand(-1, height * width, 1), bias], 2)
            bias = torch.cat([top, bias], 1)
        return bias[None]


def _difference(count: int, like: Tensor) -> Tensor:
    """Return (count, count): query minus key, from 0 for the smallest difference."""
    place = torch.arange(count, device=like.device)
    return place[:, None] - place + count - 1


def _between(table: Tensor, count: int, side: int) -> Tensor:
    """(2 * side - 1, d) -> (count, count, d): the row of each query and key; resized linearly."""
    if compiling() or count != side:
        table = F.interpolate(table.T[None], size=2 * count - 1, mode="linear")[0].T
    return table[_difference(count, table)]


class Block(nn.Module):
    """Attention, then a perceptron for each token, both as residual branches."""

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        positions: str,
        sides: tuple[int, int],
        window: int,
        class_rows: bool,
        layer_scale_init_value: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(channels, eps=EPS)
        self.attn = Attention(channels, heads, qkv_bias, positions, sides, class_rows)
        self.norm2 = nn.LayerNorm(channels, eps=EPS)
        self.mlp = residual.Mlp(channels, int(channels * mlp_ratio))
        scale, self.gamma_1, self.gamma_2 = layer_scale_init_value, None, None
        if scale > 0:
            self.gamma_1 = nn.Parameter(torch.full((channels,), scale))
            self.gamma_2 = nn.Parameter(torch.full((channels,), scale))
        self.drop_path = residual.DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int], extra: int) -> Tensor:
        """(B, P + H * W, C) -> the same; `size` is H and W, `extra` is P."""
        if self.window:
            out = self._in_windows(self.norm1(x), size)
        else:
            out = self.attn(self.norm1(x), size, extra)
        drop = self.drop_path
        if self.gamma_1 is not None:  # a factor for each channel, which the quick way does not know
            x = x + drop(self.attn.proj(out) * self.gamma_1)
            return x + drop(self.mlp(self.norm2(x)) * self.gamma_2)
        x = residual.add_linear(x, out, self.attn.proj, drop.draw(x))
        return residual.add_mlp(x, self.norm2, self.mlp, drop.draw(x))

    def _in_windows(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, H * W, C) -> the same: attend within windows, zeros at the lower and right border.

        As in the authors' code a padded place is a key like any other, with the bias of k and v.
        """
        (height, width), side = size, self.window
        below, right = padding_to(height, side), padding_to(width, side)
        x = F.pad(x.unflatten(1, size), (0, 0, 0, right, 0, below))
        across = (width + right) // side
        x = x.unflatten(2, (across, side)).unflatten(1, (-1, side))  # B, down, side, across, side
        shape = x.permute(0, 1, 3, 2, 4, 5).shape
        x = x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(0, 2)
        x = self.attn(x, (side, side))
        x = x.view(shape).permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        return x[:, :height, :width].flatten(1, 2)


@MODELS.register_module()
class ViT(Backbone):
    """A plain ViT for images of any size; all maps have the stride of a patch.

    With "SimpleFeaturePyramid" (ours) or "Feature2Pyramid" (mmseg's) as a neck its maps become a
    pyramid.
    """

    archs = SIZES
    no_weight_decay_keywords = ("pos_embed", "cls_token", "register_tokens")

    def __init__(
        self,
        arch: str = "base",
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        patch_size: int | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        pretrain_img_size: int = 224,
        absolute_positions: bool = True,
        relative_positions: str = "none",
        img_size: int | Sequence[int] | None = None,
        window_size: int = 0,
        global_blocks: Sequence[int] | None = None,
        class_token: bool = False,
        register_tokens: int = 0,
        layer_scale_init_value: float = 0.0,
        output_norm: bool | None = None,
        out_blocks: Sequence[int] | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size by name, "tiny" to "huge"; what follows changes it.
            embed_dim: C.
            depth: blocks.
            num_heads: of each block.
            patch_size: pixels of a patch's side; 16, in "huge" 14.
            mlp_ratio: channels within the perceptrons, as a multiple of C.
            pretrain_img_size: pixels of the side of the images that the absolute positions are
                for; others are interpolated, bicubically.
            absolute_positions: whether a learned vector is added at each place.
            relative_positions: "none", "decomposed" (ViTDet) or "table" (BEiT).
            img_size: pixels of the side, or height and width, of the images that relative positions
                of global blocks are for; others are interpolated; None for `pretrain_img_size`.
            window_size: side of the windows in tokens, 14 in ViTDet; 0 for global blocks only.
            global_blocks: blocks without windows, from 0; None for the last of each quarter.
            class_token: whether a token that is no place takes part; BEiT, MAE and DINOv2 have one.
            register_tokens: more of these (arXiv 2309.16588), 4 in DINOv2 "with registers".
            layer_scale_init_value: what branches are multiplied by at the start, a learned number
                for each channel; 0 for none.
            output_norm: whether the maps are normed, by one norm for all, as DINOv2's are.
            out_blocks: four blocks, from 0, behind which there is a map; None for the last of each
                quarter. `out_indices` chooses among the four.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the branches of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: which of the four maps are returned, in growing order.
            frozen_stages: what does not train: from 0 on the embeddings, then the blocks up to the
                n-th map. A norm of the maps always trains; blocks behind the last map never do.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(
            arch,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            patch_size=patch_size,
            output_norm=output_norm,
        )
        embed_dim, depth, heads = size["embed_dim"], size["depth"], size["num_heads"]
        self.patch_size = size.get("patch_size", 16)
        quarters = tuple(depth * (i + 1) // 4 - 1 for i in range(4))
        out_blocks = quarters if out_blocks is None else tuple(out_blocks)
        chosen = quarters if global_blocks is None else tuple(global_blocks)
        global_blocks = chosen if window_size else tuple(range(depth))
        extra = class_token + register_tokens
        _check(embed_dim, depth, heads, out_blocks, global_blocks)
        _check_positions(relative_positions, window_size, extra, class_token)
        super().__init__(
            stages=len(out_blocks),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.embed_dim, self.out_blocks, self.extra = embed_dim, out_blocks, extra
        self.patch_embed = PatchEmbed(self.patch_size, in_channels, embed_dim)
        side = pretrain_img_size // self.patch_size
        # The first entry is a class token's, used or not: files have it.
        self.pos_embed = (
            nn.Parameter(torch.empty(1, 1 + side**2, embed_dim)) if absolute_positions else None
        )
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.register_tokens = (
            nn.Parameter(torch.empty(1, register_tokens, embed_dim)) if register_tokens else None
        )
        stated = img_size or pretrain_img_size
        stated = (stated, stated) if isinstance(stated, int) else stated
        whole = (stated[0] // self.patch_size, stated[1] // self.patch_size)
        self.blocks: Any = nn.ModuleList(
            Block(
                embed_dim,
                heads,
                mlp_ratio,
                qkv_bias,
                relative_positions,
                whole if i in global_blocks else (window_size, window_size),
                0 if i in global_blocks else window_size,
                class_token,
                layer_scale_init_value,
                rate,
            )
            for i, rate in enumerate(self.drop_path_rates(depth))
        )
        self.norm = nn.LayerNorm(embed_dim, eps=EPS) if size.get("output_norm") else None
        self._draw_weights()
        self.freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map."""
        return (self.embed_dim,) * len(self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Return the pixels of a patch, for each map."""
        return (self.patch_size,) * len(self.out_indices)

    @property
    def smallest_image(self) -> int:
        """Return the side of one patch, in pixels."""
        return self.patch_size

    @property
    def depth(self) -> int:
        """Return the number of blocks."""
        return len(self.blocks)

    def depth_of(self, name: str) -> int:
        """Return the number of a parameter's block, from 1; 0 for the embeddings."""
        place = re.match(r"blocks\.(\d+)\.", name)
        if place:
            return int(place[1]) + 1
        return self.depth + 1 if name.startswith("norm.") else 0

    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the embeddings and the blocks up to a map, and the blocks behind the last map."""
        if self.frozen_stages >= 0:
            yield self.patch_embed
            tables = (self.pos_embed, self.cls_token, self.register_tokens)
            yield from (table for table in tables if table is not None)
        if self.frozen_stages >= 1:
            yield from self.blocks[: self.out_blocks[self.frozen_stages - 1] + 1]
        yield from self.blocks[self.out_blocks[self.out_indices[-1]] + 1 :]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = floor(height / patch_size)."""
        self.check_image(image)
        x = self.patch_embed(image)
        size = (x.shape[1], x.shape[2])
        if self.pos_embed is not None:
            x = x + self._absolute(size)
        x = torch.cat([*self._extra_tokens(len(x)), x.flatten(1, 2)], 1)
        maps = []
        last = self.out_blocks[self.out_indices[-1]]
        ends = [self.out_blocks[i] for i in self.out_indices]
        for index, block in enumerate(self.blocks[: last + 1]):
            x = self.run(partial(block, size=size, extra=self.extra), x)
            if index in ends:
                out = x if self.norm is None else self.norm(x)
                maps.append(out[:, self.extra :].unflatten(1, size).permute(0, 3, 1, 2))
        return tuple(maps)

    def _absolute(self, size: tuple[int, int]) -> Tensor:
        """Return (1, H, W, C): the vector of each place."""
        assert self.pos_embed is not None
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        if compiling() or size != (side, side):
            grid = F.interpolate(grid, size=size, mode="bicubic")
        return grid.permute(0, 2, 3, 1)

    def _extra_tokens(self, images: int) -> list[Tensor]:
        """Return the class token and the registers, (B, 1, C) and (B, registers, C)."""
        tokens = []
        if self.cls_token is not None:
            place = 0 if self.pos_embed is None else self.pos_embed[:, :1]
            tokens.append((self.cls_token + place).expand(images, -1, -1))
        if self.register_tokens is not None:
            tokens.append(self.register_tokens.expand(images, -1, -1))
        return tokens

    def _draw_weights(self) -> None:
        """Draw random weights as the authors do."""
        tables = (self.pos_embed, self.cls_token, self.register_tokens)
        for table in (*tables, *(m.weight for m in self.modules() if isinstance(m, nn.Linear))):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def _check(
    embed_dim: int, depth: int, heads: int, out: Sequence[int], global_blocks: Sequence[int]
) -> None:
    if heads < 1 or embed_dim < 1 or embed_dim % heads:
        raise InputError(
            f"ViT: heads divide the channels; embed_dim is {embed_dim}, num_heads {heads}. Change "
            "one of them."
        )
    ordered = list(out) == sorted(set(out)) and len(out) == 4
    if not ordered or min(out) < 0 or max(out) >= depth:
        raise InputError(
            f"ViT: out_blocks are four blocks from 0 to {depth - 1}, in growing order; got "
            f"{tuple(out)}. Leave it out for the last of each quarter."
        )
    if set(global_blocks) - set(range(depth)):
        raise InputError(
            f"ViT: global_blocks are blocks from 0 to {depth - 1}; got {tuple(global_blocks)}. "
            "Leave it out for the last of each quarter."
        )


def _check_positions(relative: str, window: int, extra: int, class_token: bool) -> None:
    if relative not in POSITIONS:
        raise InputError(
            f"ViT: relative_positions is one of {', '.join(POSITIONS)}; got {relative!r}."
        )
    if window < 0:
        raise InputError(f"ViT: window_size is 0 (no windows) or more; got {window}.")
    if extra and (window or relative == "decomposed"):
        raise InputError(
            "ViT: windows and decomposed relative positions are for places alone; class_token and "
            "register_tokens are none. Leave these out, or window_size and relative_positions."
        )
    if relative == "table" and extra > class_token:
        raise InputError(
            "ViT: a table of relative positions knows a class token, but no registers. Leave "
            "register_tokens out."
        )
