"""The tensors of a whole Swin V1, V2 and Swin-MLP under our names, with their shapes in letters.

C channels of the stage, P patch side, I image channels, N heads, M hidden channels of the MLP,
B hidden channels of the position bias MLP, R rows of the bias table, T heads times tokens of a
window, L tokens of a window, S side of the absolute place embedding.
"""

from collections.abc import Iterator
from math import isqrt

from swin_dense.checkpoints.architecture import Rows, Sizes
from swin_dense.checkpoints.names import under

V1, V2, MLP = "Swin V1", "Swin V2", "Swin-MLP"

DERIVED = "follows from the window, the model computes it"  # why buffers have no place

STEM = {
    "patch_embed.proj.weight": "C I P P",
    "patch_embed.proj.bias": "C",
    "patch_embed.norm.weight?": "C",
    "patch_embed.norm.bias?": "C",
    "absolute_pos_embed?": "1 C S S",
}
BLOCK = {
    "norm1.weight": "C",
    "norm1.bias": "C",
    "norm2.weight": "C",
    "norm2.bias": "C",
    "mlp.fc1.weight": "M C",
    "mlp.fc1.bias": "M",
    "mlp.fc2.weight": "C M",
    "mlp.fc2.bias": "C",
}
ATTENTION = {
    "attn.qkv.weight": "3C C",
    "attn.proj.weight": "C C",
    "attn.proj.bias": "C",
}
BLOCKS = {
    V1: BLOCK | ATTENTION | {"attn.relative_position_bias_table": "R N", "attn.qkv.bias?": "3C"},
    V2: BLOCK
    | ATTENTION
    | {
        "attn.logit_scale": "N 1 1",
        "attn.cpb_mlp.0.weight": "B 2",
        "attn.cpb_mlp.0.bias": "B",
        "attn.cpb_mlp.2.weight": "N B",
        "attn.q_bias?": "C",
        "attn.v_bias?": "C",
        "norm3.weight*": "C",
        "norm3.bias*": "C",
    },
    MLP: BLOCK | {"spatial_mlp.weight": "T L 1", "spatial_mlp.bias": "T"},
}
# Patch merging stands at the end of a stage and leads to the next one, whose C is twice as many.
MERGING = {
    V1: {"reduction.weight": "C 4c", "norm.weight": "4c", "norm.bias": "4c"},
    V2: {"reduction.weight": "C 4c", "norm.weight": "C", "norm.bias": "C"},
    MLP: {"reduction.weight": "C 4c", "norm.weight": "4c", "norm.bias": "4c"},
}
NORM = {"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"}

ROWS = {
    kind: Rows(
        stem=STEM,
        block=under("layers.{stage}.blocks.{block}.", BLOCKS[kind]),
        entrance=under("layers.{stage-1}.downsample.", MERGING[kind]),
        output=NORM,
    )
    for kind in (V1, V2, MLP)
}


def width(first: int, stage: int) -> int:
    """Give the channels of a stage from those of the first."""
    return first * 2**stage


def check(sizes: Sizes) -> Iterator[str]:
    """Yield what is wrong with the windows and the heads of each stage."""
    for (stage, letter), size in sizes.items():
        channels = sizes.get((stage, "C"), 0)
        if letter == "R" and (isqrt(size) ** 2 != size or size % 2 == 0):
            yield f"the bias tables of stage {stage} have {size} rows, no odd square"
        if letter == "N" and (size < 1 or channels % size):
            yield f"{size} heads do not divide the {channels} channels of stage {stage}"
