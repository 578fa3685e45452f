"""What Swin V1 and V2 share: stages of blocks over ever coarser maps of tokens.

Letters: B images, H W tokens in a column and a row, C channels.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.backbone import Backbone
from swin_dense.errors import InputError
from swin_dense.ops.tracing import compiling


def padding_to(size: int, multiple: int) -> int:
    """Return what a size lacks to a multiple; this form stays simple when sizes are symbolic."""
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
        if compiling() or below or right:
            image = F.pad(image, (0, right, 0, below))
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


def join_2x2(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 4 * C): the tokens of each 2x2 side by side."""
    height, width = x.shape[1:3]
    below, right = padding_to(height, 2), padding_to(width, 2)
    if compiling() or below or right:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    # The order the weights expect: down the left column of the four, then down the right one.
    return x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)


def relative_position_index(window: int) -> Tensor:
    """Return (L, L) rows of the bias table, one for each difference of places in a window.

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


class Staged(Backbone):
    """Know of stages, each of half the resolution and twice the channels, what all of them share.

    A subclass has `patch_embed` before them, a `Stage` each in the list that `stages_are` names,
    and for each map that is returned a norm, `norm0` to the last.

    Attributes:
        stages_are: the list's name, as in the weights.
        embed_dim: C of the first stage.
        depths: blocks of each stage.
        patch_size: pixels of a side that become one place of the first stage.
    """

    stages_are: ClassVar[str] = "layers"
    embed_dim: int
    depths: tuple[int, ...]
    patch_size: int

    @property
    def stages(self) -> Any:
        """Return the list of stages."""
        return getattr(self, self.stages_are)

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map: it doubles from stage to stage."""
        return tuple(self.embed_dim * 2**i for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Return the side of one place of each map, in pixels."""
        return tuple(self.patch_size * 2**i for i in self.out_indices)

    @property
    def smallest_image(self) -> int:
        """Return the side of one patch, in pixels."""
        return self.patch_size

    @property
    def depth(self) -> int:
        """Return the number of blocks of all stages."""
        return sum(self.depths)

    def depth_of(self, name: str) -> int:
        """Return the number of a parameter's block, from 1; 0 for the embeddings.

        A downsampling counts with the block before it, a norm of a map returned as `depth` + 1.
        """
        if name.startswith(("patch_embed.", "absolute_pos_embed")):
            return 0
        place = re.match(rf"{self.stages_are}\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name)
        if place is None:
            return self.depth + 1
        stage, block = int(place[1]), place[2]
        before = self.depths[:stage]
        return sum(before) + (self.depths[stage] if block is None else int(block) + 1)

    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the stem and the first `frozen_stages` - `frozen_before_stages` stages.

        What lies behind the last map is not computed; a parameter without a gradient would stop a
        distributed run.
        """
        if self.frozen_stages >= 0:
            yield self.get_submodule("patch_embed")
        yield from self.stages[: max(self.frozen_stages - self.frozen_before_stages, 0)]
        last = self.out_indices[-1]
        yield from (m for m in (self.stages[last].downsample, *self.stages[last + 1 :]) if m)

    def maps_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, C) behind the stem -> maps (B, C, H, W), in the format torch.channels_last."""
        maps = []
        for index, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = self.run(block, x)
            if index in self.out_indices:
                norm = self.get_submodule(f"norm{index}")
                maps.append(norm(x).permute(0, 3, 1, 2))
            if index == self.out_indices[-1]:
                break
            x = stage.downsample(x)
        return tuple(maps)


class Pyramid(Staged):
    """Run stages of blocks over ever coarser maps of tokens; see `Swin` for the arguments."""

    frozen_before_stages = 1  # the absolute place embedding

    def __init__(
        self,
        block: Callable[[int, int, int, float], nn.Module],
        merging: Callable[[int], nn.Module],
        *,
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
        _check_sizes(type(self).__name__, embed_dim, depths, num_heads, window_size, patch_size)
        super().__init__(
            stages=len(depths),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.patch_size = patch_size
        self.embed_dim, self.depths = embed_dim, tuple(depths)

        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dim, patch_norm)
        side = pretrain_img_size // patch_size
        self.absolute_pos_embed = (
            nn.Parameter(torch.empty(1, embed_dim, side, side)) if ape else None
        )
        self.layers: Any = nn.ModuleList()
        rates = iter(self.drop_path_rates(sum(depths)))
        for stage, depth in enumerate(depths):
            channels = embed_dim * 2**stage
            blocks = [block(stage, channels, number, next(rates)) for number in range(depth)]
            last = stage == len(depths) - 1
            self.layers.append(Stage(blocks, None if last else merging(channels)))
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))

        self._draw_weights()
        self.freeze()

    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the embeddings and the first `frozen_stages` - 1 stages, as the authors count."""
        if self.frozen_stages >= 1 and self.absolute_pos_embed is not None:
            yield self.absolute_pos_embed
        yield from super().frozen()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = ceil(height / out_stride).

        The maps are in the memory format torch.channels_last.
        """
        self.check_image(image)
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            place = F.interpolate(self.absolute_pos_embed, size=x.shape[1:3], mode="bicubic")
            x = x + place.permute(0, 2, 3, 1)
        return self.maps_of(x)

    def _draw_weights(self) -> None:
        """Draw random weights as the authors do; a bias table draws itself."""
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _check_sizes(
    name: str,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    window_size: int,
    patch_size: int,
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
