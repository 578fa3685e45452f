"""What a whole Swin backbone consists of, under our names, with its shapes in letters.

C channels of the stage, P patch side, I image channels, N heads, M hidden channels of the MLP,
B hidden channels of the position bias MLP, R rows of the bias table, T heads times tokens of a
window, L tokens of a window, S side of the absolute place embedding.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from math import isqrt

from swin_dense.checkpoints.layouts.layout import MLP, V1, V2

Shape = tuple[int, ...]

# A "?" marks what a model may lack, then everywhere; a "*" what each place may lack.
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
MERGING = {
    V1: {"reduction.weight": "2C 4C", "norm.weight": "4C", "norm.bias": "4C"},
    V2: {"reduction.weight": "2C 4C", "norm.weight": "2C", "norm.bias": "2C"},
    MLP: {"reduction.weight": "2C 4C", "norm.weight": "4C", "norm.bias": "4C"},
}
NORM = {"weight*": "C", "bias*": "C"}


def problems(shapes: Mapping[str, Shape], architecture: str) -> list[str]:
    """What is missing, too much or of a shape that does not go with the rest, in words."""
    depths = _depths(shapes)
    if not depths:
        return ["there are no blocks"]
    if len(shapes.get("patch_embed.proj.weight", ())) != 4:
        return ["patch_embed.proj.weight is missing or no convolution"]
    expected = _expected(depths, architecture)
    names = {_name(row): row for row in expected}
    missing = [n for n, row in names.items() if n == row and n not in shapes]
    return (
        [f"{name} is missing" for name in missing]
        + _halves(shapes, expected)
        + [f"{name} has no place in this model" for name in shapes if name not in names]
        + _misfits(shapes, expected)
    )


def _depths(shapes: Mapping[str, Shape]) -> list[int]:
    """Blocks of each stage, counted by the highest number; at least one where a merging leads."""
    found: dict[int, int] = {}
    for name in shapes:
        if match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            stage, block = map(int, match.groups())
            found[stage] = max(found.get(stage, 0), block + 1)
        if match := re.match(r"layers\.(\d+)\.downsample\.", name):
            found.setdefault(int(match[1]) + 1, 1)
    return [found.get(stage, 1) for stage in range(max(found, default=-1) + 1)]


def _expected(depths: Sequence[int], architecture: str) -> dict[str, tuple[int, str]]:
    """Row with its mark -> stage, and shape in letters."""
    expected = {row: (0, form) for row, form in STEM.items()}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            place = f"layers.{stage}.blocks.{block}."
            expected |= {place + row: (stage, f) for row, f in BLOCKS[architecture].items()}
        if stage < len(depths) - 1:
            place = f"layers.{stage}.downsample."
            expected |= {place + row: (stage, f) for row, f in MERGING[architecture].items()}
        expected |= {f"norm{stage}.{row}": (stage, f) for row, f in NORM.items()}
    return expected


def _halves(shapes: Mapping[str, Shape], expected: Iterable[str]) -> list[str]:
    """What is there in part only: the bias of a norm without its weight, or of some blocks."""
    seen: dict[str, list[str]] = {}
    for row in expected:
        if row != _name(row):
            place = row if row.endswith("*") else re.sub(r"^layers\.\d+\.blocks\.\d+\.", "", row)
            seen.setdefault(place.rpartition(".")[0], []).append(_name(row))
    return [
        f"{next(n for n in names if n not in shapes)} is missing, though others of its kind come"
        for names in seen.values()
        if 0 < sum(n in shapes for n in names) < len(names)
    ]


def _misfits(shapes: Mapping[str, Shape], expected: Mapping[str, tuple[int, str]]) -> list[str]:
    """Shapes that do not agree with the rest of their stage."""
    width = shapes["patch_embed.proj.weight"][0]
    sizes: dict[tuple[int, str], int] = {}
    found = []
    for row, (stage, form) in expected.items():
        name = _name(row)
        if name in shapes:
            sizes[stage, "C"] = width * 2**stage
            want = _fill(form, stage, shapes[name], sizes)
            if want != shapes[name]:
                found.append(f"{name} is {shapes[name]} where {want} belongs")
    for (stage, letter), size in sizes.items():
        channels = width * 2**stage
        if letter == "R" and (isqrt(size) ** 2 != size or size % 2 == 0):
            found.append(f"the bias tables of stage {stage} have {size} rows, no odd square")
        if letter == "N" and (size < 1 or channels % size):
            found.append(f"{size} heads do not divide the {channels} channels of stage {stage}")
    return found


def _fill(form: str, stage: int, shape: Shape, sizes: dict[tuple[int, str], int]) -> Shape:
    """The shape that `form` stands for; a letter not met before takes what stands in `shape`."""
    filled = []
    for axis, part in enumerate(form.split()):
        times, letter = part.rstrip("CIPNMBRTLS"), part.lstrip("0123456789")
        size = shape[axis] if axis < len(shape) else 0
        value = sizes.setdefault((stage, letter), size) if letter else 1
        filled.append(int(times or 1) * value)
    return tuple(filled)


def _name(row: str) -> str:
    return row.rstrip("?*")
