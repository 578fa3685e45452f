"""OpenMMLab's backbones: mmdet 3.x (and 2.x since it has its own Swin), mmseg 1.x, mmpretrain.

One naming for all: mmdet/models/backbones/swin.py, mmseg/models/backbones/swin.py,
mmpretrain/models/backbones/swin_transformer.py and swin_transformer_v2.py. Patches are merged by
nn.Unfold. Version 2 merges at the entrance of a stage, so its numbers are one higher.
"""

from swin_dense.backbones.swin_weights import authors
from swin_dense.backbones.swin_weights.orders import PLACE_MAP, PLACE_ROW, unfold
from swin_dense.backbones.swin_weights.rows import DERIVED, V1, V2
from swin_dense.checkpoints.architecture import Layout
from swin_dense.checkpoints.names import under

BLOCK = "stages.{stage}.blocks.{block}."
MERGE = {V1: "stages.{stage}.downsample.", V2: "stages.{stage+1}.downsample."}

STEM = {
    "patch_embed.projection.{end}": "patch_embed.proj.{end}",
    "patch_embed.norm.{end}": "patch_embed.norm.{end}",
    "absolute_pos_embed": "absolute_pos_embed",
}
IN_BLOCK = {
    "norm1.{end}": "norm1.{end}",
    "norm2.{end}": "norm2.{end}",
    "ffn.layers.0.0.{end}": "mlp.fc1.{end}",
    "ffn.layers.1.{end}": "mlp.fc2.{end}",
    "attn.w_msa.proj.{end}": "attn.proj.{end}",
}
ATTENTION = {
    V1: {
        "attn.w_msa.relative_position_bias_table": "attn.relative_position_bias_table",
        "attn.w_msa.qkv.{end}": "attn.qkv.{end}",
    },
    V2: {
        "attn.w_msa.logit_scale": "attn.logit_scale",
        "attn.w_msa.cpb_mlp.0.{end}": "attn.cpb_mlp.0.{end}",
        "attn.w_msa.cpb_mlp.2.weight": "attn.cpb_mlp.2.weight",
        "attn.w_msa.qkv.weight": "attn.qkv.weight",
        "attn.w_msa.q_bias": "attn.q_bias",
        "attn.w_msa.v_bias": "attn.v_bias",
        "norm3.{end}": "norm3.{end}",
    },
}
BUFFERS = {
    "attn.attn_mask": DERIVED,  # of the first versions of mmpretrain
    "attn.w_msa.relative_position_index": DERIVED,
    "attn.w_msa.relative_coords_table": DERIVED,
}

PROJECTS = {V1: "mmdet 3.x, mmseg 1.x, mmpretrain", V2: "mmpretrain"}
LAYOUTS = {
    kind: (
        Layout(
            name=f"OpenMMLab {kind} backbone ({PROJECTS[kind]})",
            table=STEM
            | under(BLOCK, IN_BLOCK | ATTENTION[kind], authors.BLOCK)
            | under(MERGE[kind], authors.MERGING, authors.MERGE)
            | authors.NORMS
            | authors.LAST_NORM,  # the first files of mmpretrain say norm, not norm3
            dropped=under(BLOCK, BUFFERS)
            | {"mask_token": "stands for hidden patches in pre-training"},
            orders=(*unfold(kind), PLACE_ROW if kind == V2 else PLACE_MAP),
        ),
    )
    for kind in (V1, V2)
}
