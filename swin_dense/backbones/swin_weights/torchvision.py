"""torchvision: models/swin_transformer.py.

Blocks and patch mergings take turns in `features`. Version 2 has a bias for keys too, which it
sets to zero before each use.
"""

from swin_dense.backbones.swin_weights import authors
from swin_dense.backbones.swin_weights.rows import DERIVED, V1, V2
from swin_dense.checkpoints.architecture import CLASSES, Layout
from swin_dense.checkpoints.names import under

BLOCK = "features.{2*stage+1}.{block}."
MERGE = "features.{2*stage+2}."

STEM = {
    "features.0.0.{end}": "patch_embed.proj.{end}",
    "features.0.2.{end}": "patch_embed.norm.{end}",
}
IN_BLOCK = {
    "norm1.{end}": "norm1.{end}",
    "norm2.{end}": "norm2.{end}",
    "mlp.0.{end}": "mlp.fc1.{end}",
    "mlp.3.{end}": "mlp.fc2.{end}",
    "attn.proj.{end}": "attn.proj.{end}",
}
ATTENTION = {
    V1: {
        "attn.relative_position_bias_table": "attn.relative_position_bias_table",
        "attn.qkv.{end}": "attn.qkv.{end}",
    },
    V2: {
        "attn.logit_scale": "attn.logit_scale",
        "attn.cpb_mlp.0.{end}": "attn.cpb_mlp.0.{end}",
        "attn.cpb_mlp.2.weight": "attn.cpb_mlp.2.weight",
        "attn.qkv.weight": "attn.qkv.weight",
        "attn.qkv.bias[q]": "attn.q_bias",
        "attn.qkv.bias[v]": "attn.v_bias",
    },
}
DROPPED = {
    V1: {},
    V2: {"attn.qkv.bias[k]": "torchvision sets the bias of keys to zero before each use"},
}
BUFFERS = {
    "attn.relative_position_index": DERIVED,
    "attn.relative_coords_table": DERIVED,
}

LAYOUTS = {
    kind: (
        Layout(
            name=f"torchvision {kind}",
            table=STEM
            | under(BLOCK, IN_BLOCK | ATTENTION[kind], authors.BLOCK)
            | under(MERGE, authors.MERGING, authors.MERGE)
            | authors.LAST_NORM,
            dropped=under(BLOCK, BUFFERS | DROPPED[kind]) | {"head.{end}": CLASSES},
        ),
    )
    for kind in (V1, V2)
}
