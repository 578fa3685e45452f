"""FocalNet (arXiv 2203.11926): focal modulation in the place of attention, for a neck.

Read from the bottom: `FocalNet` is all the rest of the project sees. Weights carry the names of the
authors' detection code. Letters: B images, H W rows and columns of a map, C channels, L levels.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.backbones.pyramid import Stage, Staged, padding_to
from swin_dense.errors import InputError
from swin_dense.layers.residual import DropPath, Mlp, times
from swin_dense.ops.tracing import compiling
from swin_dense.registry import MODELS

# The sizes of the paper (appendix), with the windows of its detectors; "large" and up are those of
# the authors' files for ImageNet-22K, those of "large" with sums divided by the number of levels.
# And one of ours for tests and laptops.
_LARGE = {
    "depths": (2, 2, 18, 2),
    "focal_levels": 4,
    "focal_windows": 3,
    "conv_embed": True,
    "post_norm": True,
    "layer_scale_init_value": 1e-4,
}
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"embed_dim": 24, "depths": (1, 2, 2, 1), "focal_levels": 2, "focal_windows": 3},
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "focal_levels": 3, "focal_windows": 9},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "focal_levels": 3, "focal_windows": 9},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "focal_levels": 3, "focal_windows": 9},
    "large": {"embed_dim": 192, **_LARGE, "normalize_modulator": True},
    "xlarge": {"embed_dim": 256, **_LARGE},
    "huge": {"embed_dim": 352, **_LARGE, "norm_in_modulation": True},
}
STEM = 4  # pixels of an image that become one place of the first map


class Embedding(nn.Module):
    """Bring a map to a coarser one; zeros fill the last patch at the lower and right border."""

    def __init__(self, channels: int, out: int, patch: int, overlap: bool, padding: int) -> None:
        """
        Args:
            patch: places of a side that become one.
            overlap: whether the kernel is larger than a patch.
            padding: of an overlapping kernel.
        """
        super().__init__()
        self.patch = patch
        kernel = 2 * patch - 1 if overlap else patch
        self.proj = nn.Conv2d(channels, out, kernel, patch, padding if overlap else 0)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H', W', C'), H' = ceil(H / patch)."""
        below, right = (padding_to(side, self.patch) for side in x.shape[-2:])
        if compiling() or below or right:
            x = F.pad(x, (0, right, 0, below))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Modulation(nn.Module):
    """Multiply each place by what surrounds it, gathered at growing distances (section 3).

    Each level is a depthwise convolution of the one before, 2 wider; the last is the mean of the
    whole map. Gates, read off the place, weigh the levels.
    """

    def __init__(self, channels: int, levels: int, window: int, normed: bool, scaled: bool) -> None:
        """
        Args:
            window: side of the first kernel.
            normed: whether a norm stands before the last linear map.
            scaled: whether the sum of the levels is divided by their number.
        """
        super().__init__()
        self.levels, self.scaled = levels, scaled
        self.f = nn.Linear(channels, 2 * channels + levels + 1)
        self.h = nn.Conv2d(channels, channels, 1)
        self.focal_layers: Any = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, bias=False),
                nn.GELU(),
            )
            for side in (window + 2 * level for level in range(levels))
        )
        self.ln = nn.LayerNorm(channels) if normed else None
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        channels = x.shape[-1]
        query, context, gates = self.f(x).split((channels, channels, self.levels + 1), -1)
        # On a CPU the backward pass of large kernels takes 0.4 of the time with channels last, the
        # forward pass up to twice as long.
        eager = not compiling()  # a compiler chooses by itself
        last = x.device.type == "cpu" and torch.is_grad_enabled() and eager
        order = torch.channels_last if last else torch.contiguous_format
        context, gates = (
            part.permute(0, 3, 1, 2).contiguous(memory_format=order) for part in (context, gates)
        )
        total: Any = 0
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            total = total + context * gates[:, level : level + 1]
        whole = F.gelu(context.mean((2, 3), keepdim=True))
        total = total + whole * gates[:, self.levels :]
        if self.scaled:
            total = total / (self.levels + 1)
        out = query * self.h(total).permute(0, 2, 3, 1)
        return self.proj(out if self.ln is None else self.ln(out))


class Block(nn.Module):
    """Modulation, then a perceptron for each place, both as residual branches."""

    def __init__(
        self, channels: int, mlp_ratio: float, scale: float, post: bool, drop: float, **more: Any
    ) -> None:
        super().__init__()
        self.post = post
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.modulation = Modulation(channels, **more)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop)
        self.gamma_1, self.gamma_2 = (
            nn.Parameter(torch.full((channels,), scale)) if scale > 0 else None for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        for norm, part, gamma in (
            (self.norm1, self.modulation, self.gamma_1),
            (self.norm2, self.mlp, self.gamma_2),
        ):
            branch = norm(part(x)) if self.post else part(norm(x))
            x = x + self.drop_path(times(branch, gamma))
        return x


class Halving(Embedding):
    """Halve a map, and double its channels."""

    def __init__(self, channels: int, overlap: bool) -> None:
        super().__init__(channels, 2 * channels, 2, overlap, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        return super().forward(x.permute(0, 3, 1, 2))


@MODELS.register_module()
class FocalNet(Staged):
    """FocalNet for images of any size, as in the authors' dense code.

    The mean over the map is one over its places of padding, too: an image beside a larger one in a
    batch is not what it is alone.
    """

    archs = SIZES
    patch_size = STEM

    def __init__(
        self,
        arch: str = "tiny",
        embed_dim: int | None = None,
        depths: Sequence[int] | None = None,
        focal_levels: int | None = None,
        focal_windows: int | Sequence[int] | None = None,
        mlp_ratio: float = 4.0,
        conv_embed: bool | None = None,
        stem_padding: int = 3,
        post_norm: bool | None = None,
        norm_in_modulation: bool | None = None,
        normalize_modulator: bool | None = None,
        layer_scale_init_value: float | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size by name, "tiny" to "huge"; what follows changes it.
            embed_dim: C of the first stage; it doubles from stage to stage.
            depths: blocks of each stage.
            focal_levels: L of each block: 2 (the paper's small receptive field), 3 (large) or 4.
            focal_windows: side of the first kernel, odd; each level's is 2 larger. One for all
                stages or one for each.
            mlp_ratio: channels within the perceptrons, as a multiple of C.
            conv_embed: whether the kernels of stem (7x7) and downsampling (3x3) overlap.
            stem_padding: of an overlapping stem: 3 in the authors' detection and segmentation
                files, 2 in those of classification and DINO.
            post_norm: whether the norms follow the branches.
            norm_in_modulation: whether a norm stands before the last linear map of a modulation.
            normalize_modulator: whether the sum of levels is divided by L + 1. "large" with its 4
                levels does, as the authors' configs and DINO say; for "xlarge" these two disagree.
            layer_scale_init_value: what branches are multiplied by at the start, a learned number
                for each channel; 0 for none.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the branches of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train: from 0 on the stem, then the first `frozen_stages`
                stages. The norms of the maps returned always train; what lies behind the last map
                never does.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(
            arch,
            embed_dim=embed_dim,
            depths=depths,
            focal_levels=focal_levels,
            focal_windows=focal_windows,
            conv_embed=conv_embed,
            post_norm=post_norm,
            norm_in_modulation=norm_in_modulation,
            layer_scale_init_value=layer_scale_init_value,
        )
        if normalize_modulator is None:
            theirs = self.sizes(arch)
            normalize_modulator = bool(theirs.get("normalize_modulator")) and (
                size["focal_levels"] == theirs["focal_levels"]
            )
        self.depths, self.embed_dim = tuple(size["depths"]), size["embed_dim"]
        dims = [self.embed_dim * 2**i for i in range(len(self.depths))]
        levels, windows = size["focal_levels"], size["focal_windows"]
        windows = [windows] * len(dims) if isinstance(windows, int) else list(windows)
        _check(self.depths, dims, levels, windows)
        super().__init__(
            stages=len(self.depths),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        overlap = bool(size.get("conv_embed"))
        self.patch_embed = Embedding(in_channels, self.embed_dim, STEM, overlap, stem_padding)
        rates = iter(self.drop_path_rates(sum(self.depths)))
        halves = [Halving(channels, overlap) for channels in dims[:-1]]
        self.layers: Any = nn.ModuleList(
            Stage(
                [
                    Block(
                        channels,
                        mlp_ratio,
                        size.get("layer_scale_init_value", 0.0),
                        bool(size.get("post_norm")),
                        next(rates),
                        levels=levels,
                        window=window,
                        normed=bool(size.get("norm_in_modulation")),
                        scaled=normalize_modulator,
                    )
                    for _ in range(depth)
                ],
                half,
            )
            for channels, depth, window, half in zip(
                dims, self.depths, windows, [*halves, None], strict=True
            )
        )
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.freeze()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = ceil(height / out_stride)."""
        self.check_image(image)
        image = image.contiguous(memory_format=torch.channels_last)
        return self.maps_of(self.patch_embed(image))


def _check(depths: Sequence[int], dims: Sequence[int], levels: int, windows: list[int]) -> None:
    if min((*depths, *dims), default=0) < 1:
        raise InputError(
            f"FocalNet: depths and embed_dim are at least 1; got depths {tuple(depths)} and "
            f"embed_dim {dims[0] if dims else None}."
        )
    if len(windows) != len(depths):
        raise InputError(
            f"FocalNet: focal_windows is one number for all stages or one for each; got "
            f"{len(windows)} for {len(depths)} stages."
        )
    if levels < 1 or any(window < 1 or window % 2 == 0 for window in windows):
        raise InputError(
            "FocalNet: focal_levels is at least 1 and focal_windows odd, so that a kernel has a "
            f"middle; got {levels} and {windows}. 2 to 4 and 3, 5 or 9 are usual."
        )
