"""Weights that are often taken for a Swin's, known by one name each."""

import re
from collections.abc import Iterable

KNOWN = {
    r"(.*\.)?layer[1-4]\.\d+\.conv[12]\.weight": "a ResNet",
    r"(backbone\.|model\.|encoder\.)?blocks\.\d+\.attn\.qkv\.weight": "a plain ViT",
    r"(vit\.|deit\.|beit\.)?encoder\.layer\.\d+\.attention\..*": "a plain ViT",
    r"(.*\.)?stages\.\d+\.\d+\.(dwconv|depthwise_conv|gamma).*": "a ConvNeXt",
    r"(.*\.)?stages\.\d+\.blocks\.\d+\.(conv_dw|gamma).*": "a ConvNeXt",
    r"(.*\.)?attn\.meta_mlp\.fc1\.weight": "timm's swinv2_cr, whose position bias is another",
    r"(.*\.)?mlp\._moe_layer\..*": "a Swin with experts (Swin-MoE)",
}


def kind(names: Iterable[str]) -> str | None:
    """What these weights are of, if it is one of the kinds that are met often."""
    known = {re.compile(pattern): what for pattern, what in KNOWN.items()}
    return next(
        (what for pattern, what in known.items() if any(pattern.fullmatch(n) for n in names)), None
    )
