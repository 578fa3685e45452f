"""What all kinds share: an image padded as the model wants it, and results in its own pixels."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.ops.tracing import recording

Size = tuple[int, int]  # height and width, numbers or symbols of a trace


class Graph(nn.Module):
    """A model from a batch of images of one size to named tensors.

    Attributes:
        OUTPUTS: their names.
        divisor: sides of images are extended to multiples of it.
        fill: (3,), what they are extended with.
    """

    OUTPUTS: ClassVar[tuple[str, ...]]
    model: Any  # mmdet's or mmseg's, whose parts are asked for by their names

    def __init__(self, model: nn.Module, divisor: int, fill: float) -> None:
        super().__init__()
        self.model, self.divisor, self.fill = model, divisor, fill

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Find what is in images.

        Args:
            image: (B, 3, H, W) float32, resized and normalised.
            size: (2,) int64, height and width of the image before it was resized: results are in
                its pixels.

        Returns:
            one tensor for each of OUTPUTS.
        """
        height, width = image.shape[2:]
        by = self.divisor  # in a form that ONNX divides as torch does, of numbers above 0
        down, right = ((n + by - 1) // by * by - n for n in (height, width))
        padded = F.pad(image, (0, right, 0, down), value=self.fill)
        return self.find(padded, (height, width), size)

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find what is in images that are extended; `inside` is their size without that."""
        raise NotImplementedError


def boxes_scale(inside: Size, size: Tensor) -> Tensor:
    """Return (4,) factors from pixels of the resized image to those of the image as it came."""
    height, width = inside
    rows = size[:1].float() / height
    columns = size[1:].float() / width
    return torch.cat([columns, rows, columns, rows])


def resized(maps: Tensor, inside: Size, size: Tensor) -> Tensor:
    """Return maps (B, C, H, W) cut to what is inside, in the size of the image as it came."""
    sides: Any = size.unbind()
    height, width = sides if recording() else (side.item() for side in sides)
    if not recording():
        torch._check(height >= 1)
        torch._check(width >= 1)
    cut = maps[:, :, : inside[0], : inside[1]]
    return F.interpolate(cut, size=(height, width), mode="bilinear", align_corners=False)
