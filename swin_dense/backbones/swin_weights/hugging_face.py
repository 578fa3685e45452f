"""Hugging Face transformers: models/swin/modeling_swin.py and models/swinv2/modeling_swinv2.py.

Query, key and value are three layers. Version 5 renamed the layers of V1 and still writes files
with the names of version 4; V2 kept its names. A model within another one has "swin." or "swinv2."
before its names. The backbone class of V1 norms each map by a layer of its own and does not use
`layernorm`; that of V2 norms nothing.
"""

from swin_dense.backbones.swin_weights import authors
from swin_dense.backbones.swin_weights.orders import PLACE_ROW
from swin_dense.backbones.swin_weights.rows import DERIVED, V1, V2
from swin_dense.checkpoints.architecture import CLASSES, Layout
from swin_dense.checkpoints.names import under

BLOCK = "encoder.layers.{stage}.blocks.{block}."
MERGE = "encoder.layers.{stage}.downsample."

STEM = {
    "embeddings.patch_embeddings.projection.{end}": "patch_embed.proj.{end}",
    "embeddings.norm.{end}": "patch_embed.norm.{end}",
    "embeddings.position_embeddings": "absolute_pos_embed",
}
NORMS = {
    "layernorm_before.{end}": "norm1.{end}",
    "layernorm_after.{end}": "norm2.{end}",
}
IN_BLOCK_4 = {
    "attention.output.dense.{end}": "attn.proj.{end}",
    "intermediate.dense.{end}": "mlp.fc1.{end}",
    "output.dense.{end}": "mlp.fc2.{end}",
    "attention.self.query.weight": "attn.qkv.weight[q]",
    "attention.self.key.weight": "attn.qkv.weight[k]",
    "attention.self.value.weight": "attn.qkv.weight[v]",
}
V1_4 = (
    NORMS
    | IN_BLOCK_4
    | {
        "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
        "attention.self.query.bias": "attn.qkv.bias[q]",
        "attention.self.key.bias": "attn.qkv.bias[k]",
        "attention.self.value.bias": "attn.qkv.bias[v]",
    }
)
V1_5 = NORMS | {
    "attention.relative_position_bias.relative_position_bias_table": (
        "attn.relative_position_bias_table"
    ),
    "attention.q_proj.{end}": "attn.qkv.{end}[q]",
    "attention.k_proj.{end}": "attn.qkv.{end}[k]",
    "attention.v_proj.{end}": "attn.qkv.{end}[v]",
    "attention.o_proj.{end}": "attn.proj.{end}",
    "mlp.fc1.{end}": "mlp.fc1.{end}",
    "mlp.fc2.{end}": "mlp.fc2.{end}",
}
V2_4 = (
    NORMS
    | IN_BLOCK_4
    | {
        "attention.self.logit_scale": "attn.logit_scale",
        "attention.self.continuous_position_bias_mlp.0.{end}": "attn.cpb_mlp.0.{end}",
        "attention.self.continuous_position_bias_mlp.2.weight": "attn.cpb_mlp.2.weight",
        "attention.self.query.bias": "attn.q_bias",
        "attention.self.value.bias": "attn.v_bias",
    }
)
BUFFERS = {
    "attention.self.relative_position_index": DERIVED,
    "attention.self.relative_coords_table": DERIVED,
    "attention.relative_position_bias.relative_position_index": DERIVED,
}
LAST_NORM = {"layernorm.{end}": "norm{last}.{end}"}
MAP_NORMS = {"hidden_states_norms.stage{stage+1}.{end}": "norm{stage}.{end}"}
BESIDE = {
    "classifier.{end}": CLASSES,
    "decoder.0.{end}": "paints hidden patches in pre-training",
}
MASK_TOKEN = {"embeddings.mask_token": "stands for hidden patches in pre-training"}
UNUSED = {
    "layernorm.{end}": "a backbone does not apply it to its maps",
    "hidden_states_norms.stem.{end}": "norms the patches, which are no map of ours",
}


def _layout(name: str, kind: str, in_block: dict[str, str], as_backbone: bool) -> Layout:
    table = (
        STEM
        | under(BLOCK, in_block, authors.BLOCK)
        | under(MERGE, authors.MERGING, authors.MERGE)
        | ({} if as_backbone else LAST_NORM)
    )
    dropped = under(BLOCK, BUFFERS) | MASK_TOKEN | (UNUSED if as_backbone else {})
    inner = under("swin." if kind == V1 else "swinv2.", table)
    # Export writes the first form: as the class itself has it.
    both = inner | table if as_backbone and name == "5.x" else table | inner
    return Layout(
        name=f"Hugging Face transformers {name} {kind}" + (" backbone" if as_backbone else ""),
        table=both | (MAP_NORMS if as_backbone else {}),
        dropped=dropped | under("swin.", dropped) | under("swinv2.", dropped) | BESIDE,
        marks=("hidden_states_norms.{any}",) if as_backbone else (),
        orders=(PLACE_ROW,),
    )


LAYOUTS = {
    V1: (
        _layout("4.x", V1, V1_4, as_backbone=False),
        _layout("5.x", V1, V1_5, as_backbone=False),
        _layout("4.x", V1, V1_4, as_backbone=True),
        _layout("5.x", V1, V1_5, as_backbone=True),
    ),
    V2: (_layout("4.x and 5.x", V2, V2_4, as_backbone=False),),  # its backbone class has no norms
}
