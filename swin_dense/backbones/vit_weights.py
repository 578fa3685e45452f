"""What is known of the weights of plain ViTs: MAE, ViTDet, SAM, BEiT, iBOT, DINOv2, timm's."""

from math import isqrt

from torch import Tensor, cat

from swin_dense.checkpoints.architecture import (
    CLASSES,
    Architecture,
    Layout,
    Order,
    Published,
    Rows,
    register,
)
from swin_dense.checkpoints.names import same, under
from swin_dense.checkpoints.resizing import CLASS_TABLE, DIFFERENCES, PATCHES, PLACES

ROWS = Rows(
    stem={
        "patch_embed.proj.weight": "C I P P",
        "patch_embed.proj.bias": "C",
        "pos_embed?": "1 N C",
        "cls_token?": "1 1 C",
        "register_tokens?": "1 R C",
    },
    block={
        "blocks.{block}.norm1.weight": "C",
        "blocks.{block}.norm1.bias": "C",
        "blocks.{block}.attn.qkv.weight": "3C C",
        "blocks.{block}.attn.qkv.bias?": "3C",
        "blocks.{block}.attn.rel_pos_h?": "_ D",
        "blocks.{block}.attn.rel_pos_w?": "_ D",
        "blocks.{block}.attn.relative_position_bias_table*": "T H",
        "blocks.{block}.attn.proj.weight": "C C",
        "blocks.{block}.attn.proj.bias": "C",
        "blocks.{block}.norm2.weight": "C",
        "blocks.{block}.norm2.bias": "C",
        "blocks.{block}.mlp.fc1.weight": "M C",
        "blocks.{block}.mlp.fc1.bias": "M",
        "blocks.{block}.mlp.fc2.weight": "C M",
        "blocks.{block}.mlp.fc2.bias": "C",
        "blocks.{block}.gamma_1?": "C",
        "blocks.{block}.gamma_2?": "C",
    },
    output={"norm.weight*": "C", "norm.bias*": "C"},
)
STEM = same("patch_embed.proj.{end}", "pos_embed", "cls_token")
BLOCK = same("norm1.{end}", "norm2.{end}", "attn.qkv.weight", "attn.proj.{end}")
MLP = same("mlp.fc1.{end}", "mlp.fc2.{end}")
RELATIVE = same("attn.rel_pos_h", "attn.rel_pos_w")
TABLE = "attn.relative_position_bias_table"
WITHOUT_KEY = {"attn.q_bias": "attn.qkv.bias[q]", "attn.v_bias": "attn.qkv.bias[v]"}
BLOCKS = "blocks.{block}."
NORM = same("norm.{end}")
OF_HIDDEN = "stands for hidden patches in pre-training"
HIDDEN = {"mask_token": OF_HIDDEN, "masked_embed": OF_HIDDEN}  # masked_embed: iBOT
PROJECTION = "compares images in pre-training"
HEAD = {
    "head.{end}": CLASSES,
    "fc_norm.{end}": CLASSES,
    "cls_head.{any}": CLASSES,  # SupMAE
    "head.{any}": PROJECTION,  # iBOT
    **HIDDEN,
}
PAINTER = "paints hidden patches in pre-training"
PYRAMID = "the authors' pyramid, which is a neck of other names here"


def _parts(query: str, key: str, value: str, end: str = "{end}") -> dict[str, str]:
    """Return the rows of three linear maps that are thirds of one here."""
    names = zip((query, key, value), ("[q]", "[k]", "[v]"), strict=True)
    ends = ("weight", "bias") if end == "{end}" else (end,)
    return {f"{n}.{e}": f"attn.qkv.{e}{part}" for n, part in names for e in ends}


# BEiT, in its authors' names but for the tables.
BEIT = BLOCK | MLP | WITHOUT_KEY | same("gamma_1", "gamma_2")
COMPUTED = "computed anew"
BEIT_DROPPED = HEAD | {
    "lm_head.{end}": CLASSES,
    "fpn{any}": PYRAMID,
    "blocks.{block}.attn.relative_position_index": COMPUTED,
    "rel_pos_bias.relative_position_index": COMPUTED,
    "cls_pt_{any}": "blocks that only pre-training has",  # v2
}
MMLAB_STEM = {
    "patch_embed.projection.{end}": "patch_embed.proj.{end}",
    "ln1.{end}": "norm.{end}",
} | same("pos_embed", "cls_token")
MMLAB = {
    "ln1.{end}": "norm1.{end}",
    "ln2.{end}": "norm2.{end}",
    "ffn.layers.0.0.{end}": "mlp.fc1.{end}",
    "ffn.layers.1.{end}": "mlp.fc2.{end}",
} | same("attn.qkv.weight", "attn.proj.{end}", TABLE, "gamma_1", "gamma_2")
MMLAB_DROPPED = {
    "ln2.{end}": CLASSES,
    "layers.{block}.attn.relative_position_index": COMPUTED,
    **HIDDEN,
}

HUB_STEM = {
    "embeddings.patch_embeddings.projection.{end}": "patch_embed.proj.{end}",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "register_tokens",
}
HUB_NORMS = {"layernorm_before.{end}": "norm1.{end}", "layernorm_after.{end}": "norm2.{end}"}
HUB_SCALES = {"layer_scale1.lambda1": "gamma_1", "layer_scale2.lambda1": "gamma_2"}
HUB_LAMBDAS = {"lambda_1": "gamma_1", "lambda_2": "gamma_2"}
HUB_DROPPED = {"embeddings.mask_token": HIDDEN["mask_token"], "classifier.{end}": CLASSES}
HUB_OLD = _parts(
    "attention.attention.query", "attention.attention.key", "attention.attention.value"
) | {"attention.output.dense.{end}": "attn.proj.{end}"}
HUB_NEW = _parts("attention.q_proj", "attention.k_proj", "attention.v_proj") | {
    "attention.o_proj.{end}": "attn.proj.{end}"
}
HUB_DENSE = {
    "intermediate.dense.{end}": "mlp.fc1.{end}",
    "output.dense.{end}": "mlp.fc2.{end}",
}


def _hub(layer: str, block: dict[str, str], prefix: str = "") -> dict[str, str]:
    """Return the table of a transformers model, with and without the model's own prefix."""
    table = HUB_STEM | {"layernorm.{end}": "norm.{end}"} | under(layer, block, BLOCKS)
    return (table | under(prefix, table)) if prefix else table


HUB_BEIT = (
    HUB_STEM
    | {"layernorm.{end}": "norm.{end}"}
    | under(
        "encoder.layer.{block}.",
        HUB_NORMS
        | HUB_OLD
        | HUB_DENSE
        | HUB_LAMBDAS
        | {"attention.attention.relative_position_bias.relative_position_bias_table": TABLE},
        BLOCKS,
    )
    | under(  # from 5.x on, within a process
        "layers.{block}.",
        HUB_NORMS
        | HUB_NEW
        | MLP
        | HUB_LAMBDAS
        | {"relative_position_bias.relative_position_bias_table": TABLE},
        BLOCKS,
    )
)
HUB_BEIT_DROPPED = HUB_DROPPED | {
    "lm_head.{end}": CLASSES,
    "pooler.{any}": CLASSES,
    "decode_head.{any}": "a head of other names",
    "auxiliary_head.{any}": "a head of other names",
    "fpn{any}": PYRAMID,
}


def _with_class(table: Tensor) -> Tensor:
    """(1, H, W, C) -> (1, 1 + H * W, C): zeros for the class token that the file has none for."""
    if table.dim() != 4:
        return table
    places = table.flatten(1, 2)
    return cat([places.new_zeros(1, 1, places.shape[-1]), places], 1)


def _without_class(table: Tensor) -> Tensor:
    side = isqrt(table.shape[1] - 1)
    return table[:, 1:].unflatten(1, (side, side))


SAM_NECK = "SAM's own neck"
SAM_PLACES = Order("pos_embed", _with_class, _without_class)


def _sam(mlp: dict[str, str]) -> dict[str, str]:
    """Return the table of SAM's image encoder, whose perceptrons have two maps of these names."""
    of_mlp = {f"mlp.{theirs}.{{end}}": f"mlp.{ours}.{{end}}" for theirs, ours in mlp.items()}
    block = BLOCK | RELATIVE | same("attn.qkv.bias") | of_mlp
    return same("patch_embed.proj.{end}", "pos_embed") | under(BLOCKS, block, BLOCKS)


LAYOUTS = (
    Layout(
        "official ViT (MAE, ViTDet, iBOT)",
        STEM | NORM | under(BLOCKS, BLOCK | MLP | RELATIVE | same("attn.qkv.bias"), BLOCKS),
        dropped=HEAD
        | {"decoder{any}": PAINTER}
        | {"simfp_{any}": PYRAMID, "fpn{any}": PYRAMID, "decoder_pos_embed": PAINTER},
    ),
    Layout(
        "official BEiT",
        STEM | NORM | under(BLOCKS, BEIT | same(TABLE), BLOCKS),
        dropped=BEIT_DROPPED,
        marks=("blocks.{block}.attn.q_bias",),
        zeros="[k]",
    ),
    Layout(
        "official BEiT pre-training (v1, v2)",
        STEM | NORM | under(BLOCKS, BEIT, BLOCKS),
        dropped=BEIT_DROPPED,
        marks=("rel_pos_bias.relative_position_bias_table",),
        zeros="[k]",
        shared={"rel_pos_bias.relative_position_bias_table": BLOCKS + TABLE},
    ),
    Layout(
        "OpenMMLab BEiT (mmseg, mmpretrain)",
        MMLAB_STEM | under("layers.{block}.", MMLAB | WITHOUT_KEY, BLOCKS),
        dropped=MMLAB_DROPPED,
        marks=("layers.{block}.attn.q_bias",),
        zeros="[k]",
    ),
    Layout(
        "OpenMMLab MAE (mmseg, mmpretrain)",
        MMLAB_STEM | under("layers.{block}.", MMLAB | same("attn.qkv.bias"), BLOCKS),
        dropped=MMLAB_DROPPED,
    ),
    Layout(
        "official DINOv2",
        STEM
        | NORM
        | same("register_tokens")
        | under(
            BLOCKS,
            BLOCK | MLP | same("attn.qkv.bias") | {"ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"},
            BLOCKS,
        ),
        dropped=HEAD,
        marks=("blocks.{block}.ls1.gamma",),
    ),
    Layout(
        "official SAM image encoder",
        under("image_encoder.", _sam({"lin1": "fc1", "lin2": "fc2"})),
        dropped={
            "image_encoder.neck.{any}": SAM_NECK,
            "prompt_encoder.{any}": "reads prompts",
            "mask_decoder.{any}": "SAM's own decoder",
            "pixel_mean": "belongs to the preprocessing",
            "pixel_std": "belongs to the preprocessing",
        },
        marks=("image_encoder.{any}",),
        orders=(SAM_PLACES,),
    ),
    Layout(
        "timm SAM image encoder",
        _sam({"fc1": "fc1", "fc2": "fc2"}),
        dropped={"neck.{any}": SAM_NECK, "head.{any}": CLASSES},
        orders=(SAM_PLACES,),
    ),
    Layout(
        "Hugging Face transformers ViT, ViTMAE",
        _hub("encoder.layer.{block}.", HUB_NORMS | HUB_OLD | HUB_DENSE, "vit."),
        dropped=HUB_DROPPED | {"decoder.{any}": PAINTER, "pooler.{any}": CLASSES},
        marks=("{any}intermediate.dense.weight",),
    ),
    Layout(
        "Hugging Face transformers DINOv2",
        _hub(
            "encoder.layer.{block}.",
            MLP | same("norm1.{end}", "norm2.{end}") | HUB_OLD | HUB_SCALES,
            "dinov2.",
        ),
        dropped=HUB_DROPPED,
        marks=("{any}attention.attention.query.weight",),
    ),
    Layout(
        "Hugging Face transformers DINOv2 (5.x)",
        _hub(
            "encoder.layer.{block}.",
            MLP | same("norm1.{end}", "norm2.{end}") | HUB_NEW | HUB_SCALES,
        ),
        dropped=HUB_DROPPED,
        marks=("{any}attention.q_proj.weight",),
    ),
    Layout(
        "Hugging Face transformers BEiT",
        HUB_BEIT | under("beit.", HUB_BEIT),
        dropped=HUB_BEIT_DROPPED | under("beit.", HUB_BEIT_DROPPED),
        marks=("{any}lambda_1",),
        zeros="[k]",
        shared={
            f"{model}{place}.relative_position_bias_table": BLOCKS + TABLE
            for model in ("", "beit.")
            for place in ("encoder.relative_position_bias", "shared_position_bias")
        },
    ),
    Layout(
        "Hugging Face transformers VitDet",
        {
            "embeddings.projection.{end}": "patch_embed.proj.{end}",
            "embeddings.position_embeddings": "pos_embed",
        }
        | under(
            "encoder.layer.{block}.",
            same("norm1.{end}", "norm2.{end}")
            | MLP
            | {
                f"attention.{name}": f"attn.{name}"
                for name in ("qkv.{end}", "proj.{end}", "rel_pos_h", "rel_pos_w")
            },
            BLOCKS,
        ),
        marks=("embeddings.projection.weight",),
    ),
)

MAE_LICENCE = "CC-BY-NC-4.0 (not for commercial use)"
DINO = "https://dl.fbaipublicfiles.com/dinov2"
PUBLISHED = (
    *(
        Published(
            f"mae_pretrain_vit_{size}",
            f"https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_{size}.pth",
            224,
            "ImageNet-1K without labels (MAE)",
            None,
            MAE_LICENCE,
        )
        for size in ("base", "large", "huge")
    ),
    *(
        Published(
            f"dinov2_{name}_pretrain",
            f"{DINO}/dinov2_{name.removesuffix('_reg4')}/dinov2_{name}_pretrain.pth",
            518,
            "LVD-142M without labels (DINOv2)",
            None,
            "Apache-2.0",
        )
        for size in ("vits14", "vitb14", "vitl14")
        for name in (size, f"{size}_reg4")
    ),
)

register(
    Architecture(
        name="ViT",
        rows=ROWS,
        layouts=LAYOUTS,
        published=PUBLISHED,
        resized={
            "patch_embed.proj.{end}": PATCHES,  # MAE's ViT-H has 14 pixels, ViTDet's 16
            "{any}.patch_embed.proj.{end}": PATCHES,
            "pos_embed": PLACES,
            "rel_pos_h": DIFFERENCES,
            "rel_pos_w": DIFFERENCES,
            "relative_position_bias_table": CLASS_TABLE,
        },
    )
)
