"""The authors' names, which are ours too.

github.com/microsoft/Swin-Transformer (models/swin_transformer.py, swin_transformer_v2.py,
swin_mlp.py), and the backbones of SwinTransformer/Swin-Transformer-Object-Detection and
-Semantic-Segmentation, which norm every map: `norm0` to `norm3` instead of `norm`. That `norm` is
applied to the last map, so it becomes ours of the last stage.
"""

from swin_dense.checkpoints.layouts.layout import CLASSES, DERIVED, MLP, V1, V2, Layout
from swin_dense.checkpoints.names import same, under

BLOCK = "layers.{stage}.blocks.{block}."
MERGE = "layers.{stage}.downsample."

STEM = same("patch_embed.proj.{end}", "patch_embed.norm.{end}", "absolute_pos_embed")
IN_BLOCK = same("norm1.{end}", "norm2.{end}", "mlp.fc1.{end}", "mlp.fc2.{end}")
ATTENTION = {
    V1: same("attn.relative_position_bias_table", "attn.qkv.{end}", "attn.proj.{end}"),
    V2: same("attn.logit_scale", "attn.cpb_mlp.0.{end}", "attn.cpb_mlp.2.weight")
    | same("attn.qkv.weight", "attn.q_bias", "attn.v_bias", "attn.proj.{end}"),
    MLP: same("spatial_mlp.{end}"),
}
SELDOM = {
    V1: {},
    V2: same("norm3.{end}")  # in some blocks of the sizes H and G, named as mmpretrain does
    | {  # as files were written before the code was published
        "attn.rpe_mlp.0.{end}": "attn.cpb_mlp.0.{end}",
        "attn.rpe_mlp.2.weight": "attn.cpb_mlp.2.weight",
    },
    MLP: {},
}
MERGING = same("norm.{end}", "reduction.weight")
BUFFERS = {
    "attn_mask": DERIVED,
    "attn.relative_position_index": DERIVED,
    "attn.relative_coords_table": DERIVED,
}
NORMS = same("norm{stage}.{end}")
LAST_NORM = {"norm.{end}": "norm{last}.{end}"}


def backbone(kind: str, block: str = BLOCK, merge: str = MERGE) -> dict[str, str]:
    """The table of a backbone without its output norms, with these words before the names."""
    in_block = IN_BLOCK | ATTENTION[kind] | SELDOM[kind]
    return STEM | under(block, in_block, BLOCK) | under(merge, MERGING, MERGE)


DENSE = tuple(
    Layout(
        name=f"swin_dense {kind} backbone, official names",
        architecture=kind,
        table=backbone(kind) | NORMS,
        dropped=under(BLOCK, BUFFERS),
        marks=("norm{stage}.{end}",),
        flat_ape=False,
    )
    for kind in (V1, V2)
)
CLASSIFICATION = tuple(
    Layout(
        name=f"official {kind} classification",
        architecture=kind,
        table=backbone(kind) | LAST_NORM,
        dropped=under(BLOCK, BUFFERS) | {"head.{end}": CLASSES},
    )
    for kind in (V1, V2, MLP)
)
SIMMIM = tuple(
    Layout(
        name=f"SimMIM pre-training, {bare.architecture}",
        architecture=bare.architecture,
        table=under("encoder.", bare.table),
        dropped=under("encoder.", bare.dropped)
        | {
            "encoder.mask_token": "stands for hidden patches in pre-training",
            "decoder.0.{end}": "paints hidden patches in pre-training",
        },
    )
    for bare in CLASSIFICATION[:2]
)
LAYOUTS = DENSE + CLASSIFICATION + SIMMIM
