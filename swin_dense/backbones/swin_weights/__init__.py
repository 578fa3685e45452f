"""The weights of Swin V1, V2 and Swin-MLP: their names, their shapes, and where they are.

`rows` has our names and shapes, `orders` the values that other projects lay in another order,
`published` the authors' files; the other files are the names of one project each.
"""

from swin_dense.backbones.swin_weights import (
    authors,
    hugging_face,
    openmmlab,
    orders,
    published,
    rows,
    timm,
    torchvision,
)
from swin_dense.backbones.swin_weights.rows import MLP, V1, V2
from swin_dense.checkpoints.architecture import Architecture, register
from swin_dense.checkpoints.resizing import BIAS_TABLE, PLACE_MAP

LOOK_ALIKES = {
    r"(.*\.)?layer[1-4]\.\d+\.conv[12]\.weight": "a ResNet",
    r"(backbone\.|encoder\.)?blocks\.\d+\.attn\.qkv\.weight": "a plain ViT",
    r"(backbone\.)?(vit\.|deit\.|beit\.)?encoder\.layer\.\d+\.attention\..*": "a plain ViT",
    r"(.*\.)?attn\.meta_mlp\.fc1\.weight": "timm's swinv2_cr, whose position bias is another",
    r"(.*\.)?mlp\._moe_layer\..*": "a Swin with experts (Swin-MoE)",
}
PROJECTS = (authors, openmmlab, timm, torchvision, hugging_face)

for _kind in (V1, V2, MLP):
    register(
        Architecture(
            name=_kind,
            rows=rows.ROWS[_kind],
            layouts=tuple(x for project in PROJECTS for x in project.LAYOUTS.get(_kind, ())),
            published=published.FILES.get(_kind, ()),
            width=rows.width,
            check=rows.check,
            # V2 and Swin-MLP have no table: V2 computes its position bias for any window.
            resized={"absolute_pos_embed": PLACE_MAP}
            | ({"relative_position_bias_table": BIAS_TABLE} if _kind == V1 else {}),
            suspicious=orders.other_merging,
            look_alikes=LOOK_ALIKES,
        )
    )
