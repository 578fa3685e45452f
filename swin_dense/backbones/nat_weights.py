"""What is known of the weights of NAT, DiNAT and DiNAT_s: names, shapes, and where they are.

NAT and DiNAT have the same tensors: dilations leave no trace in a file. Letters of the shapes: C
channels of a level, E those within the stem, I of the image, N heads, R side of a bias table, M
hidden channels of an MLP, P side of a patch.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from swin_dense.checkpoints.architecture import (
    CLASSES,
    Architecture,
    Layout,
    Published,
    Rows,
    Sizes,
    register,
)
from swin_dense.checkpoints.names import same, under
from swin_dense.checkpoints.resizing import Resizer

NAT, DINAT_S = "NAT", "DiNAT_s"

IN_BLOCK = {
    "norm1.weight": "C",
    "norm1.bias": "C",
    "attn.rpb": "N R R",
    "attn.qkv.weight": "3C C",
    "attn.qkv.bias?": "3C",
    "attn.proj.weight": "C C",
    "attn.proj.bias": "C",
    "norm2.weight": "C",
    "norm2.bias": "C",
    "mlp.fc1.weight": "M C",
    "mlp.fc1.bias": "M",
    "mlp.fc2.weight": "C M",
    "mlp.fc2.bias": "C",
}
NORMS = {"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"}
ROWS = {
    NAT: Rows(
        stem={
            "patch_embed.proj.0.weight": "E I 3 3",
            "patch_embed.proj.0.bias": "E",
            "patch_embed.proj.1.weight": "C E 3 3",
            "patch_embed.proj.1.bias": "C",
            "patch_embed.norm.weight": "C",
            "patch_embed.norm.bias": "C",
        },
        entrance=under(
            "levels.{stage-1}.downsample.",
            {"reduction.weight": "C c 3 3", "norm.weight": "C", "norm.bias": "C"},
        ),
        block=under("levels.{stage}.blocks.{block}.", {**IN_BLOCK, "gamma1?": "C", "gamma2?": "C"}),
        output=NORMS,
    ),
    DINAT_S: Rows(
        stem={
            "patch_embed.proj.weight": "C I P P",
            "patch_embed.proj.bias": "C",
            "patch_embed.norm.weight?": "C",
            "patch_embed.norm.bias?": "C",
        },
        entrance=under(
            "layers.{stage-1}.downsample.",
            {"reduction.weight": "C 4c", "norm.weight": "4c", "norm.bias": "4c"},
        ),
        block=under("layers.{stage}.blocks.{block}.", IN_BLOCK),
        output=NORMS,
    ),
}
PARTS = ("norm1.{end}", "attn.qkv.{end}", "attn.proj.{end}", "norm2.{end}")
BLOCK = same(*PARTS, "attn.rpb", "mlp.fc1.{end}", "mlp.fc2.{end}", "gamma1", "gamma2")
HALVING = same("reduction.weight", "norm.{end}")
OUTPUT, LAST = "norm{stage}.{end}", "norm{last}.{end}"
AUTHORS = {
    NAT: same("patch_embed.proj.0.{end}", "patch_embed.proj.1.{end}", "patch_embed.norm.{end}")
    | under("levels.{stage}.blocks.{block}.", BLOCK, "levels.{stage}.blocks.{block}.")
    | under("levels.{stage}.downsample.", HALVING, "levels.{stage}.downsample."),
    DINAT_S: same("patch_embed.proj.{end}", "patch_embed.norm.{end}")
    | under(
        "layers.{stage}.blocks.{block}.",
        {theirs: ours for theirs, ours in BLOCK.items() if "gamma" not in theirs},
        "layers.{stage}.blocks.{block}.",
    )
    | under("layers.{stage}.downsample.", HALVING, "layers.{stage}.downsample."),
}
TRANSFORMERS = (
    {
        "embeddings.patch_embeddings.projection.0.{end}": "patch_embed.proj.0.{end}",
        "embeddings.patch_embeddings.projection.1.{end}": "patch_embed.proj.1.{end}",
        "embeddings.norm.{end}": "patch_embed.norm.{end}",
    }
    | under(
        "encoder.levels.{stage}.layers.{block}.",
        {
            "layernorm_before.{end}": "norm1.{end}",
            "attention.self.rpb": "attn.rpb",
            "attention.self.query.{end}": "attn.qkv.{end}[q]",
            "attention.self.key.{end}": "attn.qkv.{end}[k]",
            "attention.self.value.{end}": "attn.qkv.{end}[v]",
            "attention.output.dense.{end}": "attn.proj.{end}",
            "layernorm_after.{end}": "norm2.{end}",
            "intermediate.dense.{end}": "mlp.fc1.{end}",
            "output.dense.{end}": "mlp.fc2.{end}",
            "layer_scale_parameters[0]": "gamma1",
            "layer_scale_parameters[1]": "gamma2",
        },
        "levels.{stage}.blocks.{block}.",
    )
    | under("encoder.levels.{stage}.downsample.", HALVING, "levels.{stage}.downsample.")
)
WHOLE = TRANSFORMERS | {"layernorm.{end}": LAST}


def _authors(kind: str) -> tuple[Layout, Layout]:
    return (
        Layout(f"official {kind} backbone", AUTHORS[kind] | same(OUTPUT), marks=(OUTPUT,)),
        Layout(
            f"official {kind} classification",
            AUTHORS[kind] | {"norm.{end}": LAST},
            dropped={"head.{end}": CLASSES},
        ),
    )


LAYOUTS = {
    NAT: (
        *_authors(NAT),
        Layout(
            "Hugging Face transformers NAT",
            under("dinat.", WHOLE) | WHOLE | under("nat.", WHOLE),
            dropped={"classifier.{end}": CLASSES},
        ),
        Layout(
            "Hugging Face transformers NAT backbone",
            TRANSFORMERS | {"hidden_states_norms.stage{stage+1}.{end}": OUTPUT},
            marks=("hidden_states_norms.{any}",),
        ),
    ),
    DINAT_S: _authors(DINAT_S),
}


def _how_table(old: tuple[int, ...], new: tuple[int, ...]) -> str:
    odd = all(len(shape) == 3 and shape[1] == shape[2] and shape[1] % 2 for shape in (old, new))
    if odd and old[0] == new[0]:
        before, after = ((shape[1] + 1) // 2 for shape in (old, new))
        return f"bias table {before}x{before} -> {after}x{after} window, bicubic"
    return ""


def _resize_table(table: Tensor, new: tuple[int, ...]) -> Tensor:
    return F.interpolate(table.float()[None], size=new[1:], mode="bicubic")[0].to(table.dtype)


def _check(sizes: Sizes) -> Iterator[str]:
    """Yield what is wrong with the windows and the heads of each level."""
    for (level, letter), size in sizes.items():
        channels = sizes.get((level, "C"), 0)
        if letter == "R" and size % 4 != 1:
            yield f"the bias tables of level {level} have a side of {size}, no odd window's"
        if letter == "N" and (size < 1 or channels % size):
            yield f"{size} heads do not divide the {channels} channels of level {level}"


ADDRESS = "https://shi-labs.com/projects"
ONE, MORE, BOTH = "ImageNet-1K", "ImageNet-22K", "ImageNet-22K, then 1K"
# Per cent, by the authors' README, at the addresses of their code; they publish no hashes. Folder
# of the address, image size.
ACCURACY: dict[str, tuple[str, int, str, float | None]] = {
    "nat_mini": ("nat/checkpoints/CLS", 224, ONE, 81.8),
    "nat_tiny": ("nat/checkpoints/CLS", 224, ONE, 83.2),
    "nat_small": ("nat/checkpoints/CLS", 224, ONE, 83.7),
    "nat_base": ("nat/checkpoints/CLS", 224, ONE, 84.3),
    "dinat_mini_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 81.8),
    "dinat_tiny_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 82.7),
    "dinat_small_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 83.8),
    "dinat_base_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 84.4),
    "dinat_large_in22k_224": ("dinat/checkpoints/imagenet22k", 224, MORE, None),
    "dinat_large_in22k_in1k_224": ("dinat/checkpoints/imagenet1k", 224, BOTH, 86.6),
    "dinat_large_in22k_in1k_384": ("dinat/checkpoints/imagenet1k", 384, BOTH, 87.4),
    "dinat_large_in22k_in1k_384_11x11": ("dinat/checkpoints/imagenet1k", 384, BOTH, 87.5),
    "dinat_s_tiny_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 81.8),
    "dinat_s_small_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 83.5),
    "dinat_s_base_in1k_224": ("dinat/checkpoints/imagenet1k", 224, ONE, 83.8),
    "dinat_s_large_in22k_224": ("dinat/checkpoints/imagenet22k", 224, MORE, None),
    "dinat_s_large_in1k_224": ("dinat/checkpoints/imagenet1k", 224, BOTH, 86.5),
    "dinat_s_large_in1k_384": ("dinat/checkpoints/imagenet1k", 384, BOTH, 87.4),
}
PLACE = {NAT: "levels", DINAT_S: "layers"}

for _kind in (NAT, DINAT_S):
    register(
        Architecture(
            name=_kind,
            rows=ROWS[_kind],
            layouts=LAYOUTS[_kind],
            published=tuple(
                Published(
                    name, f"{ADDRESS}/{folder}/{name}.pth", side, trained_on, top1, licence="MIT"
                )
                for name, (folder, side, trained_on, top1) in ACCURACY.items()
                if name.startswith("dinat_s_") == (_kind == DINAT_S)
            ),
            width=lambda first, level: first * 2**level,
            check=_check,
            resized={"rpb": Resizer(_how_table, _resize_table)},
            look_alikes={rf"(.*\.)?{PLACE[_kind]}\.\d+\.blocks\.\d+\.attn\.rpb": f"a {_kind}"},
        )
    )
