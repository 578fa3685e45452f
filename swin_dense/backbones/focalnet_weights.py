"""What is known of the weights of FocalNet: names, shapes, and where they are.

Letters of the shapes: C channels of a stage, I of the image, M hidden channels of an MLP, F rows of
the first linear map of a modulation, P and K sides of the kernels of stem and downsampling.
"""

from torch import Tensor

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
from swin_dense.checkpoints.resizing import GATES, KERNEL

LEVELS = 4  # of depthwise kernels in a block, at most
BLOCK = "layers.{stage}.blocks.{block}."
HALVING = "layers.{stage-1}.downsample."
ROWS = Rows(
    stem=under("patch_embed.", {"proj.weight": "C I P P", "proj.bias": "C"})
    | under("patch_embed.norm.", {"weight": "C", "bias": "C"}),
    entrance=under(HALVING, {"proj.weight": "C c K K", "proj.bias": "C"})
    | under(HALVING, {"norm.weight": "C", "norm.bias": "C"}),
    block=under(
        BLOCK,
        {
            **{f"norm{i}.{end}": "C" for i in (1, 2) for end in ("weight", "bias")},
            "modulation.f.weight": "F C",
            "modulation.f.bias": "F",
            "modulation.focal_layers.0.0.weight": "C 1 _ _",
            **{
                f"modulation.focal_layers.{level}.0.weight?": "C 1 _ _"
                for level in range(1, LEVELS)
            },
            "modulation.h.weight": "C C 1 1",
            "modulation.h.bias": "C",
            "modulation.ln.weight?": "C",
            "modulation.ln.bias?": "C",
            "modulation.proj.weight": "C C",
            "modulation.proj.bias": "C",
            "mlp.fc1.weight": "M C",
            "mlp.fc1.bias": "M",
            "mlp.fc2.weight": "C M",
            "mlp.fc2.bias": "C",
            "gamma_1?": "C",
            "gamma_2?": "C",
        },
    ),
    output={"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"},
)
OUTPUT, LAST = "norm{stage}.{end}", "norm{last}.{end}"
SAME = same(
    *("modulation.f.{end}", "modulation.h.{end}", "modulation.proj.{end}"),
    *(f"modulation.focal_layers.{level}.0.weight" for level in range(LEVELS)),
    *("mlp.fc1.{end}", "mlp.fc2.{end}"),
)
NORMS = same("norm1.{end}", "norm2.{end}")


def _table(stem: str, halving: str, block: str, parts: dict[str, str]) -> dict[str, str]:
    """Return the table of a backbone without the norms of its maps.

    Args:
        stem: what stands before the projection and the norm of the stem.
        halving: before those of the downsampling that leads to {stage}.
        block: before the names of a {block} of a {stage}.
        parts: their name of a tensor of a block -> ours.
    """
    pair = same("proj.{end}", "norm.{end}")
    return (
        under(stem, pair, "patch_embed.")
        | under(halving, pair, HALVING)
        | under(block, parts, BLOCK)
    )


AUTHORS = _table(
    "patch_embed.",
    HALVING,
    BLOCK,
    SAME | NORMS | same("modulation.ln.{end}", "gamma_1", "gamma_2"),
)
SHARED = {name: ours for name, ours in SAME.items() if "focal_layers" in name or "mlp" in name}
TRANSFORMERS = (
    {
        "embeddings.patch_embeddings.projection.{end}": "patch_embed.proj.{end}",
        "embeddings.norm.{end}": "patch_embed.norm.{end}",
    }
    | under(
        "encoder.stages.{stage-1}.downsample.",
        {"projection.{end}": "proj.{end}", "norm.{end}": "norm.{end}"},
        HALVING,
    )
    | under(
        "encoder.stages.{stage}.layers.{block}.",
        {
            **NORMS,
            "modulation.projection_in.{end}": "modulation.f.{end}",
            "modulation.projection_context.{end}": "modulation.h.{end}",
            "modulation.projection_out.{end}": "modulation.proj.{end}",
            "modulation.layernorm.{end}": "modulation.ln.{end}",
            **SHARED,
            **same("gamma_1", "gamma_2"),
        },
        BLOCK,
    )
)


def _without_kernel(x: Tensor) -> Tensor:
    """(C', C, 1, 1) -> (C', C); what is no convolution is not timm's, which is told later."""
    return x.flatten(1) if x.dim() == 4 else x


def _timm(name: str, post: bool) -> tuple[Layout, Layout]:
    """Return the layouts of timm's classifiers and feature extractors.

    Args:
        post: whether the norms follow the branches; they have another name then.
    """
    mark = "_post" if post else ""
    parts = SAME | {f"norm{i}{mark}.{{end}}": f"norm{i}.{{end}}" for i in (1, 2)}
    parts |= {"modulation.norm.{end}": "modulation.ln.{end}"}
    parts |= {f"ls{i}.gamma": f"gamma_{i}" for i in (1, 2)}
    # All linear maps are convolutions there.
    orders = tuple(
        Order(f"{BLOCK}{part}.weight", _without_kernel, lambda x: x[:, :, None, None])
        for part in ("modulation.f", "modulation.proj", "mlp.fc1", "mlp.fc2")
    )
    # A downsampling belongs to the stage it leads to.
    whole, features = (
        _table(
            "stem.",
            f"layers{joint}{{stage}}.downsample.",
            f"layers{joint}{{stage}}.blocks.{{block}}.",
            parts,
        )
        for joint in "._"
    )
    return (
        Layout(
            f"timm {name}",
            whole | {"norm.{end}": LAST},
            dropped={"head.fc.{end}": CLASSES},
            orders=orders,
        ),
        Layout(f"timm {name}, features only", features, orders=orders),
    )


LAYOUTS = (
    Layout("official FocalNet backbone", AUTHORS | same(OUTPUT), marks=(OUTPUT,)),
    Layout(
        "official FocalNet classification",
        AUTHORS | {"norm.{end}": LAST},
        dropped={"head.{end}": CLASSES},
    ),
    *_timm("FocalNet", post=False),
    *_timm("FocalNet of large sizes", post=True),
    Layout(
        "Hugging Face transformers FocalNet",
        under("focalnet.", TRANSFORMERS | {"layernorm.{end}": LAST})
        | TRANSFORMERS
        | {"layernorm.{end}": LAST},
        dropped={
            "classifier.{end}": CLASSES,
            "decoder.0.{end}": "paints hidden patches in pre-training",
            "focalnet.embeddings.mask_token": "stands for hidden patches in pre-training",
        },
    ),
)
ADDRESS = "https://github.com/microsoft/FocalNet/releases/download/v1.0.0"
ONE, MORE = "ImageNet-1K", "ImageNet-22K"
# Per cent, by the authors' README; they publish no hashes. The huge sizes' addresses are gone.
ACCURACY: dict[str, tuple[int, str, float | None]] = {
    "focalnet_tiny_srf": (224, ONE, 82.1),
    "focalnet_tiny_lrf": (224, ONE, 82.3),
    "focalnet_small_srf": (224, ONE, 83.4),
    "focalnet_small_lrf": (224, ONE, 83.5),
    "focalnet_base_srf": (224, ONE, 83.7),
    "focalnet_base_lrf": (224, ONE, 83.9),
    "focalnet_large_lrf_384": (384, MORE, None),
    "focalnet_large_lrf_384_fl4": (384, MORE, None),
    "focalnet_xlarge_lrf_384": (384, MORE, None),
    "focalnet_xlarge_lrf_384_fl4": (384, MORE, None),
}

register(
    Architecture(
        name="FocalNet",
        rows=ROWS,
        layouts=LAYOUTS,
        published=tuple(
            Published(name, f"{ADDRESS}/{name}.pth", side, trained_on, top1, licence="MIT")
            for name, (side, trained_on, top1) in ACCURACY.items()
        ),
        width=lambda first, stage: first * 2**stage,
        resized={
            "{any}.focal_layers.{level}.0.weight": KERNEL,
            "{any}.modulation.f.{end}": GATES,
        },
        look_alikes={r"(.*\.)?modulation\.focal_layers\.\d+\.0\.weight": "a FocalNet"},
    )
)
