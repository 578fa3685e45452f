"""The authors' ImageNet weights: where they are, what they are, what they reach.

Accuracies are those of the authors' README (github.com/microsoft/Swin-Transformer), which also
links the files; their licence is MIT. The authors publish no hashes. A hash below is that of public
copies of the file (one of the tiny Swin, four and six of the others), not held against the authors'
address yet. None means that no copy was found; `downloads` keeps the hash of the first download.
"""

from dataclasses import dataclass

from swin_dense.errors import nearest

RELEASES = "https://github.com/SwinTransformer/storage/releases/download"
LICENCE = "MIT"


@dataclass(frozen=True)
class Weights:
    """One file."""

    name: str
    release: str
    image_size: int  # pixels
    window: int  # tokens
    trained_on: str
    top1: float | None  # per cent on ImageNet-1K; None where the classifier knows other classes
    sha256: str | None = None
    licence: str = LICENCE

    @property
    def file(self) -> str:
        return f"{self.name}.pth"

    @property
    def url(self) -> str:
        return f"{RELEASES}/{self.release}/{self.file}"


ONE, MORE, BOTH = "ImageNet-1K", "ImageNet-22K", "ImageNet-22K, then 1K"

ALL = (
    Weights(
        "swin_tiny_patch4_window7_224",
        "v1.0.0",
        224,
        7,
        ONE,
        81.2,
        "9f71c168d837d1b99dd1dc29e14990a7a9e8bdc5f673d46b04fe36fe15590ad3",
    ),
    Weights("swin_small_patch4_window7_224", "v1.0.0", 224, 7, ONE, 83.2),
    Weights("swin_base_patch4_window7_224", "v1.0.0", 224, 7, ONE, 83.5),
    Weights("swin_base_patch4_window12_384", "v1.0.0", 384, 12, ONE, 84.5),
    Weights("swin_tiny_patch4_window7_224_22k", "v1.0.8", 224, 7, MORE, None),
    Weights("swin_small_patch4_window7_224_22k", "v1.0.8", 224, 7, MORE, None),
    Weights("swin_base_patch4_window7_224_22k", "v1.0.0", 224, 7, MORE, None),
    Weights("swin_base_patch4_window12_384_22k", "v1.0.0", 384, 12, MORE, None),
    Weights("swin_large_patch4_window7_224_22k", "v1.0.0", 224, 7, MORE, None),
    Weights("swin_large_patch4_window12_384_22k", "v1.0.0", 384, 12, MORE, None),
    Weights("swin_tiny_patch4_window7_224_22kto1k_finetune", "v1.0.8", 224, 7, BOTH, 80.9),
    Weights("swin_small_patch4_window7_224_22kto1k_finetune", "v1.0.8", 224, 7, BOTH, 83.2),
    Weights("swin_base_patch4_window7_224_22kto1k", "v1.0.0", 224, 7, BOTH, 85.2),
    Weights(
        "swin_base_patch4_window12_384_22kto1k",
        "v1.0.0",
        384,
        12,
        BOTH,
        86.4,
        "0f6f7d28cb1ddf43af5583163310b29cb3805a32044f226025352494702c606e",
    ),
    Weights("swin_large_patch4_window7_224_22kto1k", "v1.0.0", 224, 7, BOTH, 86.3),
    Weights(
        "swin_large_patch4_window12_384_22kto1k",
        "v1.0.0",
        384,
        12,
        BOTH,
        87.3,
        "30762928cd6ee9229e24e26e200951b8fe635799b67db016ba747fa653b64db9",
    ),
    Weights("swinv2_tiny_patch4_window8_256", "v2.0.0", 256, 8, ONE, 81.8),
    Weights("swinv2_small_patch4_window8_256", "v2.0.0", 256, 8, ONE, 83.7),
    Weights("swinv2_base_patch4_window8_256", "v2.0.0", 256, 8, ONE, 84.2),
    Weights("swinv2_tiny_patch4_window16_256", "v2.0.0", 256, 16, ONE, 82.8),
    Weights("swinv2_small_patch4_window16_256", "v2.0.0", 256, 16, ONE, 84.1),
    Weights("swinv2_base_patch4_window16_256", "v2.0.0", 256, 16, ONE, 84.6),
    Weights("swinv2_base_patch4_window12_192_22k", "v2.0.0", 192, 12, MORE, None),
    Weights("swinv2_large_patch4_window12_192_22k", "v2.0.0", 192, 12, MORE, None),
    Weights("swinv2_base_patch4_window12to16_192to256_22kto1k_ft", "v2.0.0", 256, 16, BOTH, 86.2),
    Weights("swinv2_base_patch4_window12to24_192to384_22kto1k_ft", "v2.0.0", 384, 24, BOTH, 87.1),
    Weights("swinv2_large_patch4_window12to16_192to256_22kto1k_ft", "v2.0.0", 256, 16, BOTH, 86.9),
    Weights("swinv2_large_patch4_window12to24_192to384_22kto1k_ft", "v2.0.0", 384, 24, BOTH, 87.6),
)
BY_NAME = {weights.name: weights for weights in ALL}


def hint(name: str) -> str:
    """What to say of a name that is neither a file nor in the table."""
    return nearest(name, BY_NAME) if name.startswith("swin") else ""
