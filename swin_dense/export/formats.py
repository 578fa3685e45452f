"""A trained model written as a file that another program runs."""

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.onnx.errors import OnnxExporterError

from swin_dense.errors import InputError
from swin_dense.export import sessions
from swin_dense.export.graphs.fixed_rows import NOTHING
from swin_dense.export.graphs.graph import Graph
from swin_dense.export.graphs.traceable import traceable

OPSET = 17
SUFFIXES = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "torchscript": ".torchscript",
    "torch-export": ".pt2",
}
OF_TORCH = (SUFFIXES["torchscript"], SUFFIXES["torch-export"])
LEAST, MOST = 65, 16384  # sides of an image in pixels, as torch.export proves them


def write(graph: Graph, path: Path, about: Mapping[str, Any], sampling: str = "grid") -> None:
    """Write a model as the file that the suffix of `path` names, one of SUFFIXES.

    Args:
        graph: what it computes.
        about: what the file says of itself, as JSON; its outputs are added.
        sampling: how deformable attention reads maps; see `traceable`.

    Raises:
        InputError: the package that writes such files is not installed.
    """
    said = json.dumps({**about, "outputs": list(graph.OUTPUTS), "sampling": sampling})
    if path.suffix in OF_TORCH:
        script = path.suffix == SUFFIXES["torchscript"]
        (_write_torchscript if script else _write_exported)(graph, path, said, sampling)
        return
    onnx = sessions.package("onnx")
    model = onnx.load_from_string(_onnx(graph, sampling))
    onnx.helper.set_model_props(model, {sessions.ABOUT: said})
    if path.suffix == SUFFIXES["onnx"]:
        onnx.save(model, str(path))
        return
    openvino = sessions.package("openvino")
    converted = openvino.Core().read_model(model.SerializeToString(), b"")
    converted.set_rt_info(said, sessions.ABOUT)
    openvino.save_model(converted, str(path), compress_to_fp16=False)


def example(graph: Graph) -> tuple[Tensor, Tensor]:
    """Return images and a size to trace with: no two sides agree, nor divide what they meet.

    On the last map, of 1/32, they are larger than a window: Swin V2 and NAT look at smaller maps
    in another way, and a trace keeps the way that it saw.
    """
    windows = (getattr(part, "window", 0) for part in graph.modules())
    largest = max(one for one in (*windows, 5) if isinstance(one, int))
    height, width = 32 * (largest + 1) + 11, 32 * (largest + 3) + 29
    image = torch.linspace(-2, 2, 2 * 3 * height * width).view(2, 3, height, width)
    return image, torch.tensor([height + 8, width + 16])


def _onnx(graph: Graph, sampling: str) -> bytes:
    """Return ONNX in standard operators; the batch and both sides of the image are open.

    torch.jit.trace follows the graph once. torch.export would prove what this assumes, in a minute
    for a nano Mask R-CNN, and its exporter takes eight more (two cores).
    """
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    axes |= {name: {0: "batch", **_open(name)} for name in graph.OUTPUTS}
    written = io.BytesIO()
    with _quiet(), _our_ops(), torch.no_grad(), traceable(graph, sampling):
        try:
            torch.onnx.export(
                graph,
                example(graph),
                written,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(sessions.INPUTS),
                output_names=list(graph.OUTPUTS),
                dynamic_axes=axes,
            )
        except OnnxExporterError as error:
            raise InputError(
                "model: a part of it has no form in ONNX that takes every size: "
                f"{str(error).splitlines()[0][:200]} Write it as 'torchscript' or 'torch-export', "
                "or with another backbone."
            ) from error
    return written.getvalue()


def _write_torchscript(graph: Graph, path: Path, said: str, sampling: str) -> None:
    """Write TorchScript; two ops in it are ours: import swin_dense.export.sessions first."""
    with _quiet(), torch.no_grad(), traceable(graph, sampling):
        module = torch.jit.trace(graph, example(graph), check_trace=False)
        frozen = torch.jit.freeze(module.eval())
        torch.jit.save(frozen, str(path), _extra_files={sessions.ABOUT: said})


def _write_exported(graph: Graph, path: Path, said: str, sampling: str) -> None:
    """Write a program of torch.export, whose attention and suppression are our ops."""
    sides = (
        torch.export.Dim(name, min=least, max=most)
        for name, least, most in (("b", 1, 1024), ("h", LEAST, MOST), ("w", LEAST, MOST))
    )
    shapes: Any = (dict(zip((0, 2, 3), sides, strict=True)), {})
    with torch.no_grad(), traceable(graph, sampling):
        program = torch.export.export(graph, example(graph), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, str(path), extra_files={sessions.ABOUT: said})


def _open(name: str) -> dict[int, str]:
    """Return which axes of an output are as long as the image as it came, beside the first."""
    if name in ("label_map", "segment_map"):
        return {1: "rows", 2: "columns"}
    return {2: "rows", 3: "columns"} if name == "masks" else {}


def require(path: Path) -> None:
    """Refuse a file whose format's packages are not installed."""
    if path.suffix not in OF_TORCH:
        sessions.package("onnx")
        sessions.package("openvino" if path.suffix == SUFFIXES["openvino"] else "onnxruntime")


def parts(path: Path) -> list[Path]:
    """Return the files that one of a model consists of: OpenVINO's has its weights beside it."""
    both = [path, path.with_suffix(".bin")] if path.suffix == SUFFIXES["openvino"] else [path]
    return [one for one in both if one.exists()]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have models follow torch alone, and keep from users what a trace says of Python values.

    Those that are read here are the same for all images. mmdet asks whether it is exported, and
    computes boxes by functions that it no longer has. The exporter takes the sizes behind
    `unflatten` for constants.
    """
    with (
        warnings.catch_warnings(),
        mock.patch("torch.onnx.is_in_onnx_export", return_value=False),
        mock.patch.object(Tensor, "unflatten", _reshaped),
    ):
        for kind in (torch.jit.TracerWarning, DeprecationWarning, UserWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        yield


def _reshaped(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    dim %= x.dim()
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


@contextlib.contextmanager
def _our_ops() -> Iterator[None]:
    """Have the exporter know our two ops, and one of torch's that it does not."""
    words: dict[str, Callable[..., Any]] = {
        "swin_dense::kept": _kept,
        "swin_dense::roi_align": _roi_align,
        "aten::mT": _transposed,
    }
    for name, word in words.items():
        torch.onnx.register_custom_op_symbolic(name, word, OPSET)
    try:
        yield
    finally:
        for name in words:
            torch.onnx.unregister_custom_op_symbolic(name, OPSET)


def _transposed(g: Any, x: Any) -> Any:
    axes = list(range(torch.onnx.symbolic_helper._get_tensor_rank(x)))
    return g.op("Transpose", x, perm_i=[*axes[:-2], axes[-1], axes[-2]])


def _kept(g: Any, boxes: Any, scores: Any, labels: Any, groups: Any, iou_threshold: Any) -> Any:
    """Suppress by NonMaxSuppression, with a column of scores for each label.

    What it picks is written into a tensor of the shape of the scores: only the list of picks has
    a length that depends on values.
    """

    def numbers(*values: int) -> Any:
        return g.op("Constant", value_t=torch.tensor(values, dtype=torch.int64))

    def floats(*values: float) -> Any:
        return g.op("Constant", value_t=torch.tensor(values, dtype=torch.float32))

    count = torch.onnx.symbolic_helper._get_const(groups, "i", "groups")
    threshold = torch.onnx.symbolic_helper._get_const(iou_threshold, "f", "iou_threshold")
    every = g.op("Constant", value_t=torch.arange(count).view(1, count, 1))
    mine = g.op("Equal", g.op("Unsqueeze", labels, numbers(1)), every)
    by_label = g.op("Where", mine, g.op("Unsqueeze", scores, numbers(1)), floats(NOTHING))
    shape = g.op("Shape", scores)
    boxes = g.op("Reshape", boxes, numbers(0, -1, 4))  # OpenVINO wants to know that there are four
    most = g.op("Gather", shape, numbers(1), axis_i=0)
    picked = g.op(
        "NonMaxSuppression", boxes, by_label, most, floats(threshold), floats(NOTHING / 2)
    )
    places = g.op("Gather", picked, numbers(0, 2), axis_i=1)
    none = g.op("Expand", floats(0.0), shape)
    length = g.op("Gather", g.op("Shape", places), numbers(0), axis_i=0)
    found = g.op("ScatterND", none, places, g.op("Expand", floats(1.0), length))
    found.setType(scores.type())
    return found


def _roi_align(
    g: Any,
    maps: Any,
    rois: Any,
    height: Any,
    width: Any,
    scale: Any,
    ratio: Any,
    most: Any,
    aligned: Any,
) -> Any:
    """Average the samples of each bin by RoiAlign; its outputs for training are not there."""

    def value(name: str, given: Any, kind: str) -> Any:
        return torch.onnx.symbolic_helper._get_const(given, kind, name)

    def numbers(*values: int) -> Any:
        return g.op("Constant", value_t=torch.tensor(values, dtype=torch.int64))

    columns = g.op("Gather", rois, g.op("Constant", value_t=torch.tensor(0)), axis_i=1)
    half = value("aligned", aligned, "b")
    found = g.op(
        "RoiAlign",
        maps,
        g.op("Reshape", g.op("Slice", rois, numbers(1), numbers(5), numbers(1)), numbers(-1, 4)),
        g.op("Cast", columns, to_i=torch.onnx.TensorProtoDataType.INT64),
        coordinate_transformation_mode_s="half_pixel" if half else "output_half_pixel",
        mode_s="max" if value("most", most, "b") else "avg",
        output_height_i=value("height", height, "i"),
        output_width_i=value("width", width, "i"),
        sampling_ratio_i=value("ratio", ratio, "i"),
        spatial_scale_f=value("scale", scale, "f"),
    )
    return found, found, found
