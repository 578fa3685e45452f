"""Files of models, opened: by ONNX Runtime, OpenVINO or torch, whichever reads them.

A session is called with images (B, 3, H, W) float32 and a size (2,) int64, and returns the named
tensors of its graph (graphs/graph.py).
"""

import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch

from swin_dense.errors import InputError, MissingInputError

Run = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
INPUTS = ("image", "size")
ABOUT = "swin_dense"  # the key of what a file says of itself
OURS = "swin_dense.export.graphs.fixed_rows"  # registers the ops in torch's files that are ours
EXTRAS = {"onnxruntime": "onnx", "onnx": "onnx", "openvino": "openvino"}


class Session(NamedTuple):
    """A file that is ready to run.

    Attributes:
        path: of the file.
        about: what it says of itself: task, classes, outputs, config, weights.
        run: images, size -> its outputs, in their order.
    """

    path: Path
    about: Mapping[str, Any]
    run: Run

    def __call__(self, images: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Return the outputs of images (B, 3, H, W) float32, in pixels of `size`, by name."""
        try:
            found = self.run(images, np.asarray(size, np.int64))
        except Exception as error:  # a runtime's errors have no class that all its versions know
            reason = str(error).strip().splitlines() or [type(error).__name__]
            count, _, height, width = images.shape
            raise InputError(
                f"{self.path}: it does not take {count} images of {width}x{height} pixels, as the "
                f"model sees them: {reason[-1][:200]} Ask for another image scale or batch, or "
                "predict with the checkpoint."
            ) from error
        return dict(zip(self.about["outputs"], found, strict=True))


def package(name: str) -> Any:
    """Import a package that only files of models need.

    Raises:
        InputError: it is not installed; says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name} is not installed, which this file needs: pip install '.[{EXTRAS[name]}]'"
        ) from error


def open_file(path: str | Path, device: str = "cpu") -> Session:
    """Open the file of a model; it computes in as many threads as torch does.

    Args:
        path: its suffix, one of READERS, says what reads it.
        device: "cpu" or "cuda"; OpenVINO computes on processors.

    Raises:
        InputError: there is no such file, none of ours, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"checkpoint: there is no file {path}.")
    about, run = READERS[path.suffix](path, device)
    if about is None:
        raise InputError(
            f"{path}: it does not say which classes it knows and how images are prepared for it. "
            "tools/export.py writes files that do."
        )
    return Session(path, about, run)


def _onnx(path: Path, device: str) -> tuple[Any, Run]:
    runtime = package("onnxruntime")
    asked = runtime.SessionOptions()
    asked.intra_op_num_threads = torch.get_num_threads()
    asked.log_severity_level = 3
    kinds = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        kinds.insert(0, "CUDAExecutionProvider")
        if kinds[0] not in runtime.get_available_providers():
            raise InputError(
                f"device {device}: this onnxruntime computes on processors alone. Install "
                "onnxruntime-gpu, or leave the device out."
            )
    try:
        session = runtime.InferenceSession(str(path), asked, providers=kinds)
    except Exception as error:  # its errors have no class of their own that all versions know
        raise _unreadable(path, error) from error
    said = session.get_modelmeta().custom_metadata_map.get(ABOUT)
    names = [one.name for one in session.get_inputs()]

    def run(images: np.ndarray, size: np.ndarray) -> list[np.ndarray]:
        given = {"image": images, "size": size}
        return session.run(None, {name: given[name] for name in names})

    return said and json.loads(said), run


def _openvino(path: Path, device: str) -> tuple[Any, Run]:
    openvino = package("openvino")
    if device != "cpu":
        raise InputError(f"device {device}: OpenVINO's files run on the processor. Leave it out.")
    core = openvino.Core()
    # It would take 16 bits where the processor has products of them, without a word.
    how = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    how["INFERENCE_NUM_THREADS"] = str(torch.get_num_threads())
    try:
        model = core.read_model(str(path))
        said = model.get_rt_info(ABOUT).value if model.has_rt_info(ABOUT) else None
        compiled = core.compile_model(model, "CPU", how)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    # An input has further names where it is passed on as it is.
    names = [next(n for n in INPUTS if n in one.names) for one in compiled.inputs]

    def run(images: np.ndarray, size: np.ndarray) -> list[np.ndarray]:
        given = {"image": images, "size": size}
        found = compiled([given[name] for name in names])
        return [found[one] for one in compiled.outputs]

    return said and json.loads(said), run


def _torchscript(path: Path, device: str) -> tuple[Any, Run]:
    importlib.import_module(OURS)
    held = {ABOUT: ""}
    try:
        module = torch.jit.load(str(path), map_location=device, _extra_files=held)
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    return json.loads(held[ABOUT] or "null"), _of_torch(module, device)


def _exported(path: Path, device: str) -> tuple[Any, Run]:
    importlib.import_module(OURS)
    held = {ABOUT: ""}
    if device != "cpu":
        raise InputError(f"device {device}: this file was written for the processor. Leave it out.")
    try:
        module = torch.export.load(str(path), extra_files=held).module()
    except (RuntimeError, ValueError, KeyError, AssertionError, BadZipFile) as error:
        raise _unreadable(path, error) from error
    return json.loads(held[ABOUT] or "null"), _of_torch(module, device)


def _of_torch(module: Callable[..., Any], device: str) -> Run:
    def run(images: np.ndarray, size: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(images).to(device), torch.from_numpy(size).to(device))
        return [one.cpu().numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return run


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(
        f"{path}: it cannot be read: {reason[-1][:200]} Write it again with tools/export.py."
    )


READERS = {
    ".onnx": _onnx,
    ".xml": _openvino,
    ".torchscript": _torchscript,
    ".pt2": _exported,
}
