"""What is known of the weights of CSWin: names, shapes, and where they are.

Letters of the shapes: C channels of a stage, D those of one direction of stripes (half of C, all
in the last stage), I of the image, M hidden channels of an MLP.
"""

from swin_dense.checkpoints.architecture import (
    CLASSES,
    Architecture,
    Layout,
    Published,
    Rows,
    register,
)
from swin_dense.checkpoints.names import same, under

BLOCK, ENTRANCE = "layers.{stage}.blocks.{block}.", "layers.{stage-1}.downsample."
IN_BLOCK = {
    "norm1.weight": "C",
    "norm1.bias": "C",
    "qkv.weight": "3C C",
    "qkv.bias": "3C",
    "attns.0.get_v.weight": "D 1 3 3",
    "attns.0.get_v.bias": "D",
    "attns.1.get_v.weight*": "D 1 3 3",
    "attns.1.get_v.bias*": "D",
    "proj.weight": "C C",
    "proj.bias": "C",
    "norm2.weight": "C",
    "norm2.bias": "C",
    "mlp.fc1.weight": "M C",
    "mlp.fc1.bias": "M",
    "mlp.fc2.weight": "C M",
    "mlp.fc2.bias": "C",
}
ROWS = Rows(
    stem={
        "patch_embed.proj.weight": "C I 7 7",
        "patch_embed.proj.bias": "C",
        "patch_embed.norm.weight": "C",
        "patch_embed.norm.bias": "C",
    },
    entrance=under(
        ENTRANCE,
        {"conv.weight": "C c 3 3", "conv.bias": "C", "norm.weight": "C", "norm.bias": "C"},
    ),
    block=under(BLOCK, IN_BLOCK),
    output={"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"},
)
PARTS = ("norm1", "qkv", "attns.0.get_v", "attns.1.get_v", "proj", "norm2", "mlp.fc1", "mlp.fc2")


def _behind(theirs: str, ours: str, *parts: str) -> dict[str, str]:
    """Return the table of tensors that are called the same behind `theirs` and `ours`."""
    table = same(*(f"{part}.{{end}}" for part in parts))
    return {theirs + name: ours + meaning for name, meaning in table.items()}


AUTHORS = {
    "stage1_conv_embed.0.{end}": "patch_embed.proj.{end}",
    "stage1_conv_embed.2.{end}": "patch_embed.norm.{end}",
    **_behind("merge{stage}.", ENTRANCE, "conv", "norm"),
    **_behind("stage{stage+1}.{block}.", BLOCK, *PARTS),
}
OURS = {
    **same("patch_embed.proj.{end}", "patch_embed.norm.{end}"),
    **_behind(ENTRANCE, ENTRANCE, "conv", "norm"),
    **_behind(BLOCK, BLOCK, *PARTS),
}
OUTPUT, LAST = "norm{stage}.{end}", "norm{last}.{end}"
LAYOUTS = (
    Layout("official CSWin backbone", AUTHORS | {"norm{stage+1}.{end}": OUTPUT}),
    Layout(
        "official CSWin classification",
        AUTHORS | {"norm.{end}": LAST},
        dropped={"head.{end}": CLASSES},
    ),
    Layout("CSWin backbone in our names", OURS | same(OUTPUT)),
)
ADDRESS = "https://github.com/microsoft/CSWin-Transformer/releases/download/v0.1.0"
ONE, MORE, BOTH = "ImageNet-1K", "ImageNet-22K", "ImageNet-22K, then 1K"
# Per cent, by the authors' README; they publish no hashes, and of base no file of ImageNet-22K.
ACCURACY: dict[str, tuple[int, str, float | None]] = {
    "cswin_tiny_224": (224, ONE, 82.8),
    "cswin_small_224": (224, ONE, 83.6),
    "cswin_base_224": (224, ONE, 84.2),
    "cswin_base_384": (384, ONE, 85.5),
    "cswin_large_22k_224": (224, MORE, None),
    "cswin_large_224": (224, BOTH, 86.5),
    "cswin_large_384": (384, BOTH, 87.5),
}

register(
    Architecture(
        name="CSWin",
        rows=ROWS,
        layouts=LAYOUTS,
        published=tuple(
            Published(name, f"{ADDRESS}/{name}.pth", side, trained_on, top1, licence="MIT")
            for name, (side, trained_on, top1) in ACCURACY.items()
        ),
        look_alikes={r"(.*\.)?stage\d\.\d+\.attns\.[01]\.get_v\..*": "a CSWin"},
    )
)
