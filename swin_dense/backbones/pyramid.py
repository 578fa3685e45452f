"""What Swin V1 and V2 share: stages of blocks over ever coarser maps of tokens.

Letters: B images, H W tokens in a column and a row, C channels.
"""

import re
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swin_dense.errors import InputError


def padding_to(size: int, multiple: int) -> int:
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
        below, right = padding_to(height, self.patch_size), padding_to(width, self.patch_size)
        # A traced program serves many sizes: it may not ask about this one.
        if torch.compiler.is_compiling() or below or right:
            image = F.pad(image, (0, right, 0, below))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


def join_2x2(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 4 * C): the tokens of each 2x2 side by side."""
    height, width = x.shape[1:3]
    below, right = padding_to(height, 2), padding_to(width, 2)
    if torch.compiler.is_compiling() or below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    # The order the weights expect: down the left column of the four, then down the right one.
    return x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)


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


class Pyramid(BaseModule):
    """A stage of blocks for each resolution; see `Swin` for the arguments."""

    def __init__(
        self,
        block: Callable[[int, int, int, float], nn.Module],
        merging: Callable[[int], nn.Module],
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        window_size: int,
        patch_size: int,
        in_channels: int,
        ape: bool,
        pretrain_img_size: int,
        patch_norm: bool,
        drop_path_rate: float,
        out_indices: Sequence[int],
        frozen_stages: int,
        with_cp: bool,
        init_cfg: dict | list[dict] | None,
    ) -> None:
        """
        Args:
            block: (stage, C, number within the stage, share of dropped branches) -> a block.
            merging: C -> what joins 2x2 tokens into one of 2 * C.
        """
        super().__init__(init_cfg)
        name = type(self).__name__
        _check_sizes(name, embed_dim, depths, num_heads, window_size, patch_size, drop_path_rate)
        _check_choices(name, len(depths), out_indices, frozen_stages)
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.out_indices = tuple(out_indices)
        self.embed_dim, self.depths = embed_dim, tuple(depths)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim, patch_norm)
        side = pretrain_img_size // patch_size
        self.absolute_pos_embed = (
            nn.Parameter(torch.empty(1, embed_dim, side, side)) if ape else None
        )
        self.layers = nn.ModuleList()
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        for stage, depth in enumerate(depths):
            channels = embed_dim * 2**stage
            blocks = [block(stage, channels, number, next(rates)) for number in range(depth)]
            last = stage == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else merging(channels)))
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))

        self._draw_weights()
        self._freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """C of each map returned."""
        return tuple(self.embed_dim * 2**i for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Side of one token of each map returned, in input pixels."""
        return tuple(self.patch_size * 2**i for i in self.out_indices)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    def depth_of(self, name: str) -> int:
        """How deep a parameter lies, by its name: 0 for the embeddings, then 1 to `depth` by block.

        A downsampling counts with the block before it, a norm of a map returned as `depth` + 1.
        """
        if name.startswith(("patch_embed.", "absolute_pos_embed")):
            return 0
        place = re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name)
        if place is None:
            return self.depth + 1
        stage, block = int(place[1]), place[2]
        before = self.depths[:stage]
        return sum(before) + (self.depths[stage] if block is None else int(block) + 1)

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

    def train(self, mode: bool = True) -> "Pyramid":
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
        name = type(self).__name__
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise InputError(
                f"{name}: images come as (B, {self.in_channels}, height, width), this has shape "
                f"{tuple(image.shape)}. Set in_channels to what the data has, or mend the data."
            )
        if min(image.shape[-2:]) < self.patch_size:
            height, width = image.shape[-2:]
            raise InputError(
                f"{name}: an image of {height}x{width} pixels is a size smaller than one patch. "
                f"The smallest allowed is {self.patch_size}x{self.patch_size}; resize or drop it."
            )


def _check_sizes(
    name: str,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    patch_size: int,
    drop_path_rate: float,
) -> None:
    if len(depths) != len(num_heads) or min(depths, default=0) < 1:
        raise InputError(
            f"{name}: depths and num_heads have one number per stage, depths at least 1; got "
            f"depths {tuple(depths)} and num_heads {tuple(num_heads)}. Give both the same length."
        )
    for stage, heads in enumerate(num_heads):
        channels = embed_dim * 2**stage
        if heads < 1 or channels < 1 or channels % heads:
            raise InputError(
                f"{name}: heads divide the channels; stage {stage} has {channels} channels "
                f"(embed_dim {embed_dim}) and {heads} heads. Change embed_dim or num_heads."
            )
    if window_size < 1 or patch_size < 1:
        raise InputError(
            f"{name}: window_size and patch_size are at least 1; got {window_size} and "
            f"{patch_size}. 7 or 8 and 4 are usual."
        )
    if not 0 <= drop_path_rate < 1:
        raise InputError(
            f"{name}: drop_path_rate is a share from 0 to below 1; got {drop_path_rate}. "
            "Usual values are 0.1 to 0.5."
        )


def _check_choices(name: str, stages: int, out_indices: Sequence[int], frozen_stages: int) -> None:
    wanted = list(out_indices)
    if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0 or wanted[-1] >= stages:
        raise InputError(
            f"{name}: out_indices are stages from 0 to {stages - 1}, in growing order, each once; "
            f"got {tuple(wanted)}. Try {tuple(range(stages))}."
        )
    if not -1 <= frozen_stages <= stages + 1:
        raise InputError(
            f"{name}: frozen_stages is -1 (all trains) to {stages + 1} (all {stages} stages "
            f"frozen); got {frozen_stages}. Freeze the first n stages with n + 1."
        )
