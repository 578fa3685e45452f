"""mmdet's Swin-T run by what users of a processor pick instead of torch, to be measured too.

ONNX Runtime and OpenVINO, each of one fixed size of images, on as many threads as torch.
"""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swin_dense.benchmarks import peers
from swin_dense.benchmarks.ratios import LeftOutError

# What each can compute in on a CPU; the names are those of backbone.PRECISIONS.
PRECISIONS = {"ONNX Runtime": ("fp32",), "OpenVINO": ("fp32", "bf16 autocast")}
_PACKAGES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
_OPSET = 17

Run = Callable[[], list[Any]]


def load(name: str, image: Tensor, precision: str) -> Run:
    """Prepare a runtime; what is returned computes the maps of `image`, (B, 3, H, W) float32.

    Args:
        name: one of PRECISIONS.

    Raises:
        LeftOutError: it is not installed, or does not take the model.
    """
    if image.device.type != "cpu":
        raise LeftOutError(f"{name}: measured on processors alone, left out")
    try:
        package = peers.reach(_PACKAGES[name])
        peers.reach("onnx")  # torch's exporter asks for it
    except peers.NotInstalledError as error:
        raise LeftOutError(f"{name}: {error}, left out") from error
    model = peers.load("mmdet", image.shape[3], image.shape[2])
    model.eval()  # mmdet's returns None
    make = {"ONNX Runtime": _onnx_runtime, "OpenVINO": _openvino}[name]
    try:
        return make(package, as_onnx(model, image), image, precision)
    except RuntimeError as error:  # what both of them raise derives from it
        reason = str(error).strip().splitlines()[0]
        raise LeftOutError(f"{name}: does not take the model ({reason}), left out") from error


def as_onnx(model: torch.nn.Module, image: Tensor) -> bytes:
    """Write a backbone for images of the size of `image`."""
    written = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # that sizes become constants is what is wanted
        torch.onnx.export(model, (image,), written, dynamo=False, opset_version=_OPSET)
    return written.getvalue()


def _onnx_runtime(package: Any, model: bytes, image: Tensor, precision: str) -> Run:
    options = package.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = package.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, given)


def _openvino(package: Any, model: bytes, image: Tensor, precision: str) -> Run:
    hints = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = package.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", hints)
    request, given = compiled.create_infer_request(), [image.numpy()]
    return lambda: list(request.infer(given).values())
