"""The authors' names, which are ours too.

github.com/microsoft/Swin-Transformer (models/swin_transformer.py, swin_transformer_v2.py,
swin_mlp.py), and the backbones of SwinTransformer/Swin-Transformer-Object-Detection and
-Semantic-Segmentation, which norm every map: `norm0` to `norm3` instead of `norm`. That `norm` is
applied to the last map, so it becomes ours of the last stage.
"""

from swin_dense.backbones.swin_weights.orders import PLACE_MAP, PLACE_ROW
from swin_dense.backbones.swin_weights.rows import DERIVED, MLP, V1, V2
from swin_dense.checkpoints.architecture import CLASSES, Layout
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
    """Give the table of a backbone without its output norms, its names behind these words."""
    in_block = IN_BLOCK | ATTENTION[kind] | SELDOM[kind]
    return STEM | under(block, in_block, BLOCK) | under(merge, MERGING, MERGE)


DENSE = {
    kind: Layout(
        name=f"official {kind} backbone",
        table=backbone(kind) | NORMS,
        dropped=under(BLOCK, BUFFERS),
        marks=("norm{stage}.{end}",),
        orders=(PLACE_MAP,),
    )
    for kind in (V1, V2)
}
CLASSIFICATION = {
    kind: Layout(
        name=f"official {kind} classification",
        table=backbone(kind) | LAST_NORM,
        dropped=under(BLOCK, BUFFERS) | {"head.{end}": CLASSES},
        orders=(PLACE_ROW,),
    )
    for kind in (V1, V2, MLP)
}
SIMMIM = {
    kind: Layout(
        name=f"SimMIM pre-training, {kind}",
        table=under("encoder.", CLASSIFICATION[kind].table),
        dropped=under("encoder.", CLASSIFICATION[kind].dropped)
        | {
            "encoder.mask_token": "stands for hidden patches in pre-training",
            "decoder.0.{end}": "paints hidden patches in pre-training",
        },
        orders=(PLACE_ROW,),
    )
    for kind in (V1, V2)
}
LAYOUTS = {
    V1: (DENSE[V1], CLASSIFICATION[V1], SIMMIM[V1]),
    V2: (DENSE[V2], CLASSIFICATION[V2], SIMMIM[V2]),
    MLP: (CLASSIFICATION[MLP],),
}
