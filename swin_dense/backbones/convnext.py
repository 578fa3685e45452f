"""ConvNeXt (arXiv 2201.03545), as feature maps for a neck.

Read from the bottom: `ConvNeXt` is all the rest of the project sees. Weights carry the names of the
authors' dense-prediction code.
Letters: B images, H W rows and columns of a map, C channels.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from swin_dense.backbones.backbone import Backbone
from swin_dense.checkpoints.architecture import (
    CLASSES,
    Architecture,
    Layout,
    Order,
    Published,
    Rows,
    register,
)
from swin_dense.checkpoints.names import same, under
from swin_dense.errors import InputError
from swin_dense.layers.channel_norm import ChannelNorm
from swin_dense.layers.residual import DropPath, times
from swin_dense.registry import MODELS

# The sizes of the paper (section 3), and one of ours for tests and laptops.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"depths": (2, 2, 4, 2), "dims": (24, 48, 96, 192)},
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048)},
}
STEM = 4  # pixels of an image that become one place of the first map
GROUP = 3  # blocks of the third stage that layer-wise rules count as one layer
EPS = 1e-6  # of every norm


class Block(nn.Module):
    """Mix the neighbourhood of each place by a 7x7 depthwise convolution, then its channels."""

    def __init__(self, channels: int, drop_path: float, layer_scale_init_value: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = (
            nn.Parameter(torch.full((channels,), layer_scale_init_value))
            if layer_scale_init_value > 0
            else None
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        branch = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # B, H, W, C
        branch = times(self.pwconv2(self.act(self.pwconv1(branch))), self.gamma)
        return x + self.drop_path(branch.permute(0, 3, 1, 2))


@MODELS.register_module()
class ConvNeXt(Backbone):
    """ConvNeXt for images of at least 32 pixels a side.

    As in the authors' code nothing is padded but in front of the 7x7 convolutions: stem and
    downsampling drop the rows and columns that are left over, H = floor(height / stride).
    """

    archs = SIZES
    block: ClassVar[type[Block]] = Block

    def __init__(
        self,
        arch: str = "tiny",
        depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None,
        layer_scale_init_value: float = 1.0,
        in_channels: int = 3,
        drop_path_rate: float = 0.4,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "tiny" to "xlarge"; what follows changes it.
            depths: blocks of each stage.
            dims: C of each stage.
            layer_scale_init_value: what each branch is multiplied by at the start, a learned number
                for each channel; 0 for no such numbers. The authors start classification from 1e-6
                and dense prediction from 1.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the branch of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train: from 0 on the stem, then the first `frozen_stages`
                stages, each with the downsampling in front of it. The norms of the maps returned
                always train; what lies behind the last map is not computed and never trains.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        size = self.sizes(arch, depths=depths, dims=dims)
        depths, dims = tuple(size["depths"]), tuple(size["dims"])
        _check(self._name, depths, dims, layer_scale_init_value)
        super().__init__(
            stages=len(depths),
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.depths, self.dims = depths, dims
        stem = nn.Sequential(nn.Conv2d(in_channels, dims[0], STEM, STEM), ChannelNorm(dims[0], EPS))
        self.downsample_layers = nn.ModuleList([stem])
        for before, channels in pairwise(dims):
            halve = nn.Sequential(ChannelNorm(before, EPS), nn.Conv2d(before, channels, 2, 2))
            self.downsample_layers.append(halve)
        rates = iter(self.drop_path_rates(sum(depths)))
        self.stages: Any = nn.ModuleList(
            nn.ModuleList(
                self.block(channels, next(rates), layer_scale_init_value) for _ in range(depth)
            )
            for depth, channels in zip(depths, dims, strict=True)
        )
        for stage, channels in zip(self.out_indices, self.out_channels, strict=True):
            self.add_module(f"norm{stage}", ChannelNorm(channels, EPS))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.freeze()

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Return C of each map."""
        return tuple(self.dims[i] for i in self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Return the pixels of the image between two places of each map."""
        return tuple(STEM * 2**i for i in self.out_indices)

    @property
    def smallest_image(self) -> int:
        """Return the side, in pixels, that leaves one place in the last stage."""
        return STEM * 2 ** (len(self.depths) - 1)

    @property
    def depth(self) -> int:
        """Return the authors' number of layers: 12 for three groups of 9 blocks, 6 for tiny.

        Stages are a layer each; of the third, every three blocks are one.
        """
        return self._layer(len(self.depths) - 1, self.depths[-1] - 1)

    def depth_of(self, name: str) -> int:
        """Return the layer of a parameter, as the authors' constructor of optimizers counts it.

        A downsampling counts with the first block behind it, the stem as 0, a norm of a map as
        `depth` + 1.
        """
        if place := re.match(r"downsample_layers\.(\d+)\.", name):
            return self._layer(int(place[1]), 0) if int(place[1]) else 0
        if place := re.match(r"stages\.(\d+)\.(\d+)\.", name):
            return self._layer(int(place[1]), int(place[2]))
        return self.depth + 1

    def _layer(self, stage: int, block: int) -> int:
        if stage < 2:
            return stage + 1
        if stage == 2:
            return 3 + block // GROUP
        return stage + -(-self.depths[2] // GROUP)

    def frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        """Yield the stem and the first `frozen_stages` stages, and what no map is computed from."""
        if self.frozen_stages >= 0:
            yield self.downsample_layers[0]
        for stage in range(len(self.depths)):
            if stage < self.frozen_stages or stage > self.out_indices[-1]:
                yield self.downsample_layers[stage]
                yield self.stages[stage]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, height, width) -> maps (B, C, H, W), H = floor(height / out_stride)."""
        self.check_image(image)
        # Channels last: what permutes between convolutions and linear maps then copies nothing.
        x = image.contiguous(memory_format=torch.channels_last)
        maps = []
        for index in range(self.out_indices[-1] + 1):
            x = self.downsample_layers[index](x)
            for block in self.stages[index]:
                x = self.run(block, x)
            if index in self.out_indices:
                maps.append(self.get_submodule(f"norm{index}")(x))
        return tuple(maps)


def _check(name: str, depths: Sequence[int], dims: Sequence[int], scale: float) -> None:
    if len(depths) != len(dims) or min((*depths, *dims), default=0) < 1:
        raise InputError(
            f"{name}: depths and dims have one number for each stage, at least 1; got depths "
            f"{tuple(depths)} and dims {tuple(dims)}. Give both the same length."
        )
    if scale < 0:
        raise InputError(
            f"{name}: layer_scale_init_value is a factor from 0 (none); got {scale}. "
            "1.0 is usual in dense prediction, 1e-6 in classification."
        )


# What is known of its weights.

ROWS = Rows(
    stem={
        "downsample_layers.0.0.weight": "C I P P",
        "downsample_layers.0.0.bias": "C",
        "downsample_layers.0.1.weight": "C",
        "downsample_layers.0.1.bias": "C",
    },
    entrance={
        "downsample_layers.{stage}.0.weight": "c",
        "downsample_layers.{stage}.0.bias": "c",
        "downsample_layers.{stage}.1.weight": "C c 2 2",
        "downsample_layers.{stage}.1.bias": "C",
    },
    block={
        "stages.{stage}.{block}.dwconv.weight": "C 1 K K",
        "stages.{stage}.{block}.dwconv.bias": "C",
        "stages.{stage}.{block}.norm.weight": "C",
        "stages.{stage}.{block}.norm.bias": "C",
        "stages.{stage}.{block}.pwconv1.weight": "M C",
        "stages.{stage}.{block}.pwconv1.bias": "M",
        "stages.{stage}.{block}.pwconv2.weight": "C M",
        "stages.{stage}.{block}.pwconv2.bias": "C",
        "stages.{stage}.{block}.gamma?": "C",
    },
    output={"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"},
)
OUTPUT, LAST = "norm{stage}.{end}", "norm{last}.{end}"


def weights_table(
    stem: Sequence[str], halve: str, block: str, parts: Mapping[str, str]
) -> dict[str, str]:
    """Return the table of a backbone without the norms of its maps.

    Args:
        stem: what the convolution and the norm of the stem are called.
        halve: what stands before the "0" of the norm and the "1" of the convolution that halve a
            map, of {stage}.
        block: what stands before the names of a {block} of a {stage}.
        parts: their name of a tensor of a block -> ours.
    """
    table = {
        f"{name}.{{end}}": f"downsample_layers.0.{number}.{{end}}"
        for number, name in enumerate(stem)
    }
    table |= {
        f"{halve}{number}.{{end}}": f"downsample_layers.{{stage}}.{number}.{{end}}"
        for number in range(2)
    }
    return table | under(block, parts, "stages.{stage}.{block}.")


def _parts(*names: str) -> dict[str, str]:
    """Return the tensors of a block: depthwise, norm, both linear maps, the layer scale."""
    ours = ("dwconv.{end}", "norm.{end}", "pwconv1.{end}", "pwconv2.{end}", "gamma")
    theirs = (*(f"{name}.{{end}}" for name in names[:4]), names[4])
    return dict(zip(theirs, ours, strict=True))


STEM_OF_AUTHORS = ("downsample_layers.0.0", "downsample_layers.0.1")
AUTHORS = weights_table(
    STEM_OF_AUTHORS,
    "downsample_layers.{stage}.",
    "stages.{stage}.{block}.",
    _parts("dwconv", "norm", "pwconv1", "pwconv2", "gamma"),
)
TIMM_PARTS = _parts("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma")
TIMM, TIMM_FEATURES = (
    weights_table(
        (f"stem{joint}0", f"stem{joint}1"),
        f"stages{joint}{{stage}}.downsample.",
        f"stages{joint}{{stage}}.blocks.{{block}}.",
        TIMM_PARTS,
    )
    for joint in "._"
)
MMPRETRAIN = weights_table(
    STEM_OF_AUTHORS,
    "downsample_layers.{stage}.",
    "stages.{stage}.{block}.",
    _parts("depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2", "gamma"),
)
TRANSFORMERS = weights_table(
    ("embeddings.patch_embeddings", "embeddings.layernorm"),
    "encoder.stages.{stage}.downsampling_layer.",
    "encoder.stages.{stage}.layers.{block}.",
    _parts("dwconv", "layernorm", "pwconv1", "pwconv2", "layer_scale_parameter"),
)
TORCHVISION = weights_table(
    ("features.0.0", "features.0.1"),
    "features.{2*stage}.",
    "features.{2*stage+1}.{block}.",
    _parts("block.0", "block.2", "block.3", "block.5", "layer_scale"),
)
LAYOUTS = (
    Layout("official ConvNeXt backbone", AUTHORS | same(OUTPUT), marks=(OUTPUT,)),
    Layout(
        "official ConvNeXt classification",
        AUTHORS | {"norm.{end}": LAST},
        dropped={"head.{end}": CLASSES},
    ),
    Layout("OpenMMLab ConvNeXt backbone (mmpretrain)", MMPRETRAIN | same(OUTPUT)),
    Layout("timm ConvNeXt", TIMM | {"head.norm.{end}": LAST}, dropped={"head.fc.{end}": CLASSES}),
    Layout("timm ConvNeXt, features only", TIMM_FEATURES),
    Layout(
        "torchvision ConvNeXt",
        TORCHVISION | {"classifier.0.{end}": LAST},
        dropped={"classifier.2.{end}": CLASSES},
        orders=(
            Order(
                "stages.{stage}.{block}.gamma", lambda x: x.flatten(), lambda x: x[:, None, None]
            ),
        ),
    ),
    Layout(
        "Hugging Face transformers ConvNeXt",
        TRANSFORMERS
        | {"layernorm.{end}": LAST}
        | under("convnext.", TRANSFORMERS | {"layernorm.{end}": LAST}),
        dropped={"classifier.{end}": CLASSES},
    ),
    Layout(
        "Hugging Face transformers ConvNeXt backbone",
        TRANSFORMERS | {"hidden_states_norms.stage{stage+1}.{end}": OUTPUT},
        marks=("hidden_states_norms.{any}",),
    ),
)
ADDRESS = "https://dl.fbaipublicfiles.com/convnext"
ONE, MORE, BOTH = "ImageNet-1K", "ImageNet-22K", "ImageNet-22K, then 1K"
# Per cent, by the authors' README; they publish no hashes.
ACCURACY: dict[str, tuple[int, str, float | None]] = {
    "convnext_tiny_1k_224_ema": (224, ONE, 82.1),
    "convnext_small_1k_224_ema": (224, ONE, 83.1),
    "convnext_base_1k_224_ema": (224, ONE, 83.8),
    "convnext_base_1k_384": (384, ONE, 85.1),
    "convnext_large_1k_224_ema": (224, ONE, 84.3),
    "convnext_large_1k_384": (384, ONE, 85.5),
    "convnext_tiny_22k_224": (224, MORE, None),
    "convnext_small_22k_224": (224, MORE, None),
    "convnext_base_22k_224": (224, MORE, None),
    "convnext_large_22k_224": (224, MORE, None),
    "convnext_xlarge_22k_224": (224, MORE, None),
    "convnext_tiny_22k_1k_224": (224, BOTH, 82.9),
    "convnext_tiny_22k_1k_384": (384, BOTH, 84.1),
    "convnext_small_22k_1k_224": (224, BOTH, 84.6),
    "convnext_small_22k_1k_384": (384, BOTH, 85.8),
    "convnext_base_22k_1k_224": (224, BOTH, 85.8),
    "convnext_base_22k_1k_384": (384, BOTH, 86.8),
    "convnext_large_22k_1k_224": (224, BOTH, 86.6),
    "convnext_large_22k_1k_384": (384, BOTH, 87.5),
    "convnext_xlarge_22k_1k_224_ema": (224, BOTH, 87.0),
    "convnext_xlarge_22k_1k_384_ema": (384, BOTH, 87.8),
}

register(
    Architecture(
        name="ConvNeXt",
        rows=ROWS,
        layouts=LAYOUTS,
        published=tuple(
            Published(name, f"{ADDRESS}/{name}.pth", side, trained_on, top1, licence="MIT")
            for name, (side, trained_on, top1) in ACCURACY.items()
        ),
        look_alikes={
            r"(.*\.)?stages\.\d+\.\d+\.(dwconv|depthwise_conv|gamma).*": "a ConvNeXt",
            r"(.*\.)?stages\.\d+\.blocks\.\d+\.(conv_dw|gamma).*": "a ConvNeXt",
        },
    )
)
