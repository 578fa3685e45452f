"""The authors' ImageNet weights: where they are, what they are, what they reach.

Accuracies are those of the authors' README (github.com/microsoft/Swin-Transformer), which also
links the files; their licence is MIT. The authors publish no hashes. A hash below is that of public
copies of the file (one of the tiny Swin, four and six of the others), not held against the authors'
address yet. None means that no copy was found; `downloads` keeps the hash of the first download.
"""

from dataclasses import dataclass

from swin_dense.backbones.swin_weights.rows import V1, V2
from swin_dense.checkpoints.architecture import Published

RELEASES = "https://github.com/SwinTransformer/storage/releases/download"
LICENCE = "MIT"


@dataclass(frozen=True)
class SwinFile(Published):
    """A file of the authors, with the side of its window in tokens."""

    window: int = 0


def _file(
    name: str,
    release: str,
    image_size: int,
    window: int,
    trained_on: str,
    top1: float | None,
    sha256: str | None = None,
) -> SwinFile:
    url = f"{RELEASES}/{release}/{name}.pth"
    return SwinFile(name, url, image_size, trained_on, top1, LICENCE, sha256, window)


ONE, MORE, BOTH = "ImageNet-1K", "ImageNet-22K", "ImageNet-22K, then 1K"

_V1 = (
    _file(
        "swin_tiny_patch4_window7_224",
        "v1.0.0",
        224,
        7,
        ONE,
        81.2,
        "9f71c168d837d1b99dd1dc29e14990a7a9e8bdc5f673d46b04fe36fe15590ad3",
    ),
    _file("swin_small_patch4_window7_224", "v1.0.0", 224, 7, ONE, 83.2),
    _file("swin_base_patch4_window7_224", "v1.0.0", 224, 7, ONE, 83.5),
    _file("swin_base_patch4_window12_384", "v1.0.0", 384, 12, ONE, 84.5),
    _file("swin_tiny_patch4_window7_224_22k", "v1.0.8", 224, 7, MORE, None),
    _file("swin_small_patch4_window7_224_22k", "v1.0.8", 224, 7, MORE, None),
    _file("swin_base_patch4_window7_224_22k", "v1.0.0", 224, 7, MORE, None),
    _file("swin_base_patch4_window12_384_22k", "v1.0.0", 384, 12, MORE, None),
    _file("swin_large_patch4_window7_224_22k", "v1.0.0", 224, 7, MORE, None),
    _file("swin_large_patch4_window12_384_22k", "v1.0.0", 384, 12, MORE, None),
    _file("swin_tiny_patch4_window7_224_22kto1k_finetune", "v1.0.8", 224, 7, BOTH, 80.9),
    _file("swin_small_patch4_window7_224_22kto1k_finetune", "v1.0.8", 224, 7, BOTH, 83.2),
    _file("swin_base_patch4_window7_224_22kto1k", "v1.0.0", 224, 7, BOTH, 85.2),
    _file(
        "swin_base_patch4_window12_384_22kto1k",
        "v1.0.0",
        384,
        12,
        BOTH,
        86.4,
        "0f6f7d28cb1ddf43af5583163310b29cb3805a32044f226025352494702c606e",
    ),
    _file("swin_large_patch4_window7_224_22kto1k", "v1.0.0", 224, 7, BOTH, 86.3),
    _file(
        "swin_large_patch4_window12_384_22kto1k",
        "v1.0.0",
        384,
        12,
        BOTH,
        87.3,
        "30762928cd6ee9229e24e26e200951b8fe635799b67db016ba747fa653b64db9",
    ),
)
_V2 = (
    _file("swinv2_tiny_patch4_window8_256", "v2.0.0", 256, 8, ONE, 81.8),
    _file("swinv2_small_patch4_window8_256", "v2.0.0", 256, 8, ONE, 83.7),
    _file("swinv2_base_patch4_window8_256", "v2.0.0", 256, 8, ONE, 84.2),
    _file("swinv2_tiny_patch4_window16_256", "v2.0.0", 256, 16, ONE, 82.8),
    _file("swinv2_small_patch4_window16_256", "v2.0.0", 256, 16, ONE, 84.1),
    _file("swinv2_base_patch4_window16_256", "v2.0.0", 256, 16, ONE, 84.6),
    _file("swinv2_base_patch4_window12_192_22k", "v2.0.0", 192, 12, MORE, None),
    _file("swinv2_large_patch4_window12_192_22k", "v2.0.0", 192, 12, MORE, None),
    _file("swinv2_base_patch4_window12to16_192to256_22kto1k_ft", "v2.0.0", 256, 16, BOTH, 86.2),
    _file("swinv2_base_patch4_window12to24_192to384_22kto1k_ft", "v2.0.0", 384, 24, BOTH, 87.1),
    _file("swinv2_large_patch4_window12to16_192to256_22kto1k_ft", "v2.0.0", 256, 16, BOTH, 86.9),
    _file("swinv2_large_patch4_window12to24_192to384_22kto1k_ft", "v2.0.0", 384, 24, BOTH, 87.6),
)
FILES = {V1: _V1, V2: _V2}
