"""RoIAlign: what a feature map holds inside each box, resampled to a fixed grid of bins."""

import math
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import reference, trust
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_atomics, refuse_forward_mode, refuse_second

torch.library.define(
    "swin_dense::roi_align",
    "(Tensor features, Tensor rois, int pooled_height, int pooled_width, float spatial_scale, "
    "int sampling_ratio, bool take_max, bool aligned) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "swin_dense::roi_align_backward",
    "(Tensor grad, Tensor rois, Tensor argmax_y, Tensor argmax_x, SymInt images, SymInt channels, "
    "SymInt height, SymInt width, float spatial_scale, int sampling_ratio, bool take_max, "
    "bool aligned) -> Tensor",
)
torch.library.impl("swin_dense::roi_align", "CompositeExplicitAutograd", reference.roi_align)
torch.library.impl(
    "swin_dense::roi_align_backward", "CompositeExplicitAutograd", reference.roi_align_backward
)


@torch.library.register_fake("swin_dense::roi_align")
def _fake(
    features: Tensor,
    rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    take_max: bool,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    trust.look("roi_align", features)
    shape = (rois.shape[0], features.shape[1], pooled_height, pooled_width)
    argmax = [rois.new_empty(shape if take_max else 0) for _ in "yx"]
    return features.new_empty(shape), argmax[0], argmax[1]


@torch.library.register_fake("swin_dense::roi_align_backward")
def _fake_backward(
    grad: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    images: int,
    channels: int,
    height: int,
    width: int,
    spatial_scale: float,
    sampling_ratio: int,
    take_max: bool,
    aligned: bool,
) -> Tensor:
    return grad.new_empty(images, channels, height, width)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    features, rois, _, _, *ctx.rest = inputs
    _, argmax_y, argmax_x = output
    ctx.features_shape = features.shape
    ctx.mark_non_differentiable(argmax_y, argmax_x)
    ctx.save_for_backward(rois, argmax_y, argmax_x)


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple:
    refuse_atomics("roi_align", grad)
    back = torch.ops.swin_dense.roi_align_backward(
        grad, *ctx.saved_tensors, *ctx.features_shape, *ctx.rest
    )
    return back, *[None] * 7


torch.library.register_autograd("swin_dense::roi_align", _backward, setup_context=_setup_context)
refuse_second("roi_align")


def roi_align(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    mode: str = "avg",
    aligned: bool = True,
) -> Tensor:
    """Cut each box into bins, sample the map bilinearly inside each bin and pool the samples.

    (B, C, H, W), (K, 5) -> (K, C, *output_size), dtype of `features`, under autocast too; sums
    are kept in float32 at least, so mixing bfloat16 features with float32 boxes loses nothing.
    Gradients reach `features` only.

    Samples more than one position outside of the map are worth 0. A box without an extent gives
    0 where sampling_ratio is 0, else the sample at its corner; so does an inverted box. A box with
    a NaN or infinite coordinate gives NaN and no gradient. A NaN or infinite feature makes the
    bins that read it NaN or infinite.

    Args:
        features: one map for all images, any strides.
        rois: index of the image, then x1, y1, x2, y2. An index without image is an error on the
            CPU and gives NaN on other devices, where looking would mean waiting.
        output_size: bins per box, (rows, columns) or one number for both.
        spatial_scale: positions of the map per unit of the boxes, e.g. 1 / 4 at stride 4.
        sampling_ratio: samples per side of a bin; 0 for one per position of the map, rounded up.
        mode: "avg" or "max" over the samples of a bin.
        aligned: True where position 0 of the map is centred at 0.5 / spatial_scale; False for the
            older convention, centred at 0, where no box is smaller than one position.
    """
    return roi_align_with_argmax(
        features, rois, output_size, spatial_scale, sampling_ratio, mode, aligned
    )[0]


def roi_align_with_argmax(
    features: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    mode: str = "avg",
    aligned: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """`roi_align`, and where in the map the largest sample of each bin lies: its y, its x.

    Of equal samples that is the first in reading order; -2 where no sample of the map is as large
    as one outside. Empty in mode "avg".
    """
    if isinstance(output_size, int):
        output_size = (output_size, output_size)
    _check(features, rois, output_size, spatial_scale, sampling_ratio, mode)
    refuse_forward_mode("roi_align", features)
    trust.look("roi_align", features)
    return torch.ops.swin_dense.roi_align(
        features,
        rois.detach().to(reference.sum_dtype(features.dtype)),
        *output_size,
        float(spatial_scale),
        sampling_ratio,
        mode == "max",
        aligned,
    )


def _check(
    features: Tensor,
    rois: Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    mode: str,
) -> None:
    if features.dim() != 4 or 0 in features.shape[2:]:
        raise ValueError(
            "roi_align: features are a map (B, C, H, W) of at least one position; got shape "
            f"{tuple(features.shape)}. Add the batch axis with features[None] if it is missing."
        )
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            "roi_align: rois are (K, 5), index of the image, x1, y1, x2, y2; got shape "
            f"{tuple(rois.shape)}. Put the index in front of the boxes, 0 for a single image."
        )
    require_floats("roi_align", features=features, rois=rois)
    require_one_device("roi_align", features=features, rois=rois)
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(
            f"roi_align: output_size is at least (1, 1), rows and columns; got {output_size}. "
            "7 is usual for boxes, 14 for masks."
        )
    if not (spatial_scale > 0 and math.isfinite(spatial_scale)):
        raise ValueError(
            f"roi_align: spatial_scale is above 0, 1 / stride of the map; got {spatial_scale}. "
            "Pass e.g. 1 / 4."
        )
    if sampling_ratio < 0:
        raise ValueError(
            f"roi_align: sampling_ratio counts samples; got {sampling_ratio}. "
            "Pass 0 for as many as the map has positions."
        )
    if mode not in ("avg", "max"):
        raise ValueError(f"roi_align: mode is 'avg' or 'max'; got {mode!r}. 'avg' is usual.")
    if rois.device.type == "cpu" and not torch.compiler.is_compiling():
        image = rois[:, 0]
        strays = ~((image > -1) & (image < len(features)))
        if bool(strays.any()):
            place = int(strays.nonzero()[0])
            raise ValueError(
                f"roi_align: the first column of rois names an image, 0 to {len(features) - 1}; "
                f"row {place} has {float(image[place])}. Is the column missing, or are these the "
                "boxes of another batch?"
            )
