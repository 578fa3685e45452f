"""ConvNeXt V2 (arXiv 2301.00808), as feature maps for a neck.

Read from the bottom: `ConvNeXtV2` is all the rest of the project sees. Weights carry the names of
the authors' code.

Against version 1: between the two linear maps of a block each channel is scaled by how strong it is
over the whole map, beside the other channels; in return a branch has no learned scale.
Letters: B images, H W rows and columns of a map, C channels, M = 4 C hidden ones.
"""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from swin_dense.backbones import convnext
from swin_dense.backbones.convnext import ROWS, STEM_OF_AUTHORS, ConvNeXt, weights_table
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
from swin_dense.registry import MODELS

# The sizes of the paper (appendix A.1); of these "atto" and "nano" are for tests and laptops too.
SIZES: dict[str, dict[str, Any]] = {
    "atto": {"depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320)},
    "femto": {"depths": (2, 2, 6, 2), "dims": (48, 96, 192, 384)},
    "pico": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512)},
    "nano": {"depths": (2, 2, 8, 2), "dims": (80, 160, 320, 640)},
    "tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536)},
    "huge": {"depths": (3, 3, 27, 3), "dims": (352, 704, 1408, 2816)},
}
EPS = 1e-6  # beside the mean strength of the channels


class GlobalResponseNorm(nn.Module):
    """Scale each channel by its strength over the map, as a share of all channels' (section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, M) -> (B, H, W, M): x + gamma * strength * x + beta."""
        strength = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # B, 1, 1, M
        share = strength / (strength.mean(-1, keepdim=True) + EPS)
        return torch.addcmul(self.beta.to(x.dtype), x, (1 + self.gamma * share).to(x.dtype))


class Block(convnext.Block):
    """The block of version 1 with the strength of channels between its linear maps."""

    def __init__(self, channels: int, drop_path: float, layer_scale_init_value: float) -> None:
        super().__init__(channels, drop_path, layer_scale_init_value)
        self.grn = GlobalResponseNorm(4 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        branch = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # B, H, W, C
        branch = self.pwconv2(self.grn(self.act(self.pwconv1(branch))))
        return x + self.drop_path(branch.permute(0, 3, 1, 2))


@MODELS.register_module()
class ConvNeXtV2(ConvNeXt):
    """ConvNeXt V2 for images of at least 32 pixels a side.

    The strength of a channel is taken over the whole map. So, other than in version 1, each place
    depends on all of the image, and on the border that a batch of unequal images is filled with.
    """

    archs = SIZES
    block = Block
    no_weight_decay_keywords = ("grn.",)

    def __init__(
        self,
        arch: str = "tiny",
        depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None,
        in_channels: int = 3,
        drop_path_rate: float = 0.4,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        """
        Args:
            arch: a size of the paper by name, "atto" to "huge"; what follows changes it.
            depths: blocks of each stage.
            dims: C of each stage.
            in_channels: channels of the image.
            drop_path_rate: share of images that lose the branch of the last block in training; it
                grows linearly from 0 in the first.
            out_indices: stages whose maps are returned, in growing order.
            frozen_stages: what does not train, as in `ConvNeXt`.
            with_cp: compute each block again in the backward pass, to save memory.
            init_cfg: mmengine's; `dict(type="Pretrained", checkpoint=...)` loads weights.
        """
        super().__init__(
            arch,
            depths,
            dims,
            layer_scale_init_value=0.0,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )


# What is known of its weights.

BLOCK, DOWN = "stages.{stage}.{block}.", "downsample_layers.{stage}."
GAMMA, BETA = "grn.gamma", "grn.beta"
OUTPUT, LAST = "norm{stage}.{end}", "norm{last}.{end}"
V2_ROWS = Rows(
    stem=ROWS.stem,
    entrance=ROWS.entrance,
    block={name: form for name, form in ROWS.block.items() if not name.endswith("?")}
    | {BLOCK + GAMMA: "1 1 1 M", BLOCK + BETA: "1 1 1 M"},
    output=ROWS.output,
)


def _parts(linear: Sequence[str], gamma: str, beta: str) -> dict[str, str]:
    """Return the tensors of a block, their name -> ours.

    Args:
        linear: depthwise convolution, norm, and both linear maps.
        gamma, beta: of the strength of channels.
    """
    ours = ("dwconv", "norm", "pwconv1", "pwconv2")
    both = zip(linear, ours, strict=True)
    return {f"{name}.{{end}}": f"{our}.{{end}}" for name, our in both} | {gamma: GAMMA, beta: BETA}


AUTHORS_PARTS = _parts(("dwconv", "norm", "pwconv1", "pwconv2"), GAMMA, BETA)
AUTHORS = weights_table(STEM_OF_AUTHORS, DOWN, BLOCK, AUTHORS_PARTS)
TIMM_PARTS = _parts(("conv_dw", "norm", "mlp.fc1", "mlp.fc2"), "mlp.grn.weight", "mlp.grn.bias")
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
    DOWN,
    BLOCK,
    _parts(("depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2"), GAMMA, BETA),
)
TRANSFORMERS = weights_table(
    ("embeddings.patch_embeddings", "embeddings.layernorm"),
    "encoder.stages.{stage}.downsampling_layer.",
    "encoder.stages.{stage}.layers.{block}.",
    _parts(("dwconv", "layernorm", "pwconv1", "pwconv2"), "grn.weight", "grn.bias"),
)
# Of pre-training, whose convolutions of halved and masked maps are sparse (MinkowskiEngine).
SPARSE = same(*(f"{name}.{{end}}" for name in STEM_OF_AUTHORS)) | {
    DOWN + "0.ln.{end}": DOWN + "0.{end}",
    DOWN + "1.kernel": DOWN + "1.weight",
    DOWN + "1.bias": DOWN + "1.bias",
    BLOCK + "dwconv.kernel": BLOCK + "dwconv.weight",
    BLOCK + "dwconv.bias": BLOCK + "dwconv.bias",
    BLOCK + "norm.ln.{end}": BLOCK + "norm.{end}",
    BLOCK + "pwconv1.linear.{end}": BLOCK + "pwconv1.{end}",
    BLOCK + "pwconv2.linear.{end}": BLOCK + "pwconv2.{end}",
    BLOCK + GAMMA: BLOCK + GAMMA,
    BLOCK + BETA: BLOCK + BETA,
}
PAINTS = "paints hidden patches in pre-training"
PAINTER = dict.fromkeys(("decoder.{any}", "proj.{end}", "pred.{end}", "mask_token"), PAINTS)


def _kernel(x: Tensor) -> Tensor:
    """(K * K, C) or (2 * 2, c, C) -> (C, 1, K, K) or (C, c, 2, 2): places lie column by column."""
    side = isqrt(len(x))
    if side**2 != len(x) or x.dim() not in (2, 3):
        return x  # none of theirs: the shape will tell
    places = x.view(side, side, -1, x.shape[-1])  # across, down, c, C
    return places.permute(3, 2, 1, 0)


def _places(x: Tensor) -> Tensor:
    """Return what `_kernel` was made from."""
    if x.dim() != 4:
        return x
    places = x.permute(3, 2, 1, 0).flatten(0, 1)
    return places.squeeze(1) if x.shape[1] == 1 else places


def _grn(to_theirs: Callable[[Tensor], Tensor]) -> tuple[Order, ...]:
    """Return how the scales of channels lie, which are (1, 1, 1, M) here."""
    return tuple(
        Order(BLOCK + name, lambda x: x.reshape(1, 1, 1, -1), to_theirs) for name in (GAMMA, BETA)
    )


FLAT = _grn(lambda x: x.flatten())
OF_SPARSE = (
    *(Order(f"{name}.{{end}}", lambda x: x, lambda x: x) for name in STEM_OF_AUTHORS),  # no change
    Order(DOWN + "1.weight", _kernel, _places),
    Order(BLOCK + "dwconv.weight", _kernel, _places),
    Order(DOWN + "1.bias", lambda x: x.flatten(), lambda x: x[None]),
    Order(BLOCK + "dwconv.bias", lambda x: x.flatten(), lambda x: x[None]),
    *_grn(lambda x: x.view(1, -1)),
)
LAYOUTS = (
    Layout("official ConvNeXt V2 backbone", AUTHORS | same(OUTPUT), marks=(OUTPUT,)),
    Layout(
        "official ConvNeXt V2 classification",
        AUTHORS | {"norm.{end}": LAST},
        dropped={"head.{end}": CLASSES},
        marks=("norm.{end}",),
    ),
    Layout("official ConvNeXt V2 pre-training", AUTHORS),
    Layout(
        "official ConvNeXt V2 masked pre-training, sparse",
        under("encoder.", SPARSE) | SPARSE,
        dropped=PAINTER,
        orders=OF_SPARSE,
    ),
    Layout("OpenMMLab ConvNeXt V2 backbone (mmpretrain)", MMPRETRAIN | same(OUTPUT), orders=FLAT),
    Layout(
        "timm ConvNeXt V2",
        TIMM | {"head.norm.{end}": LAST},
        dropped={"head.fc.{end}": CLASSES},
        orders=FLAT,
    ),
    Layout("timm ConvNeXt V2, features only", TIMM_FEATURES, orders=FLAT),
    Layout(
        "Hugging Face transformers ConvNeXt V2",
        TRANSFORMERS
        | {"layernorm.{end}": LAST}
        | under("convnextv2.", TRANSFORMERS | {"layernorm.{end}": LAST}),
        dropped={"classifier.{end}": CLASSES},
    ),
    Layout(
        "Hugging Face transformers ConvNeXt V2 backbone",
        TRANSFORMERS | {"hidden_states_norms.stage{stage+1}.{end}": OUTPUT},
        marks=("hidden_states_norms.{any}",),
    ),
)
ADDRESS = "https://dl.fbaipublicfiles.com/convnext/convnextv2"
MASKED, ONE, BOTH = "ImageNet-1K, masked", "ImageNet-1K", "ImageNet-22K, then 1K"
# Per cent, by the authors' README; they publish no hashes. Folder, size and side: accuracy.
ACCURACY: dict[str, dict[str, float | None]] = {
    "pt_only": dict.fromkeys((f"{size}_1k_224_fcmae" for size in SIZES), None),
    "im1k": {
        "atto_1k_224_ema": 76.7,
        "femto_1k_224_ema": 78.5,
        "pico_1k_224_ema": 80.3,
        "nano_1k_224_ema": 81.9,
        "tiny_1k_224_ema": 83.0,
        "base_1k_224_ema": 84.9,
        "large_1k_224_ema": 85.8,
        "huge_1k_224_ema": 86.3,
    },
    "im22k": {
        "nano_22k_224_ema": 82.1,
        "nano_22k_384_ema": 83.4,
        "tiny_22k_224_ema": 83.9,
        "tiny_22k_384_ema": 85.1,
        "base_22k_224_ema": 86.8,
        "base_22k_384_ema": 87.7,
        "large_22k_224_ema": 87.3,
        "large_22k_384_ema": 88.2,
        "huge_22k_384_ema": 88.7,
        "huge_22k_512_ema": 88.9,
    },
}
TRAINED_ON = {"pt_only": MASKED, "im1k": ONE, "im22k": BOTH}

register(
    Architecture(
        name="ConvNeXt V2",
        rows=V2_ROWS,
        layouts=LAYOUTS,
        published=tuple(
            Published(
                name=f"convnextv2_{file}",
                url=f"{ADDRESS}/{folder}/convnextv2_{file}.pt",
                image_size=int(file.split("_")[2]),
                trained_on=TRAINED_ON[folder],
                top1=top1,
                licence="CC-BY-NC-4.0",
            )
            for folder, files in ACCURACY.items()
            for file, top1 in files.items()
        ),
        look_alikes={r"(.*\.)?stages\.\d+\.(blocks\.)?\d+\.(mlp\.)?grn\..*": "a ConvNeXt V2"},
    )
)
