"""Read and write weight files. Tensors and plain values only: nothing is ever unpickled.

A checkpoint is a dict with "state_dict" (name -> tensor) and, when the file has them, "meta"
and what a run needs to resume. Bare state dicts and {"model": ...} files are wrapped alike.
"""

import contextlib
import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from swin_dense.errors import InputError, MissingInputError, nearest


def read(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The checkpoint in `path` (.safetensors, .pth or .pt).

    Raises:
        MissingInputError: there is no such file.
        InputError: the file is cut short, is no checkpoint, or holds objects whose reading
            would run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise MissingInputError(
            f"checkpoint: there is no file {path}.{nearest(path.name, beside)} "
            "tools/train.py writes its checkpoints to --work-dir."
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path, map_location)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_torch_archive(path) or b"Unsupported" in str(error).encode():
            raise InputError(
                f"checkpoint: {path} holds more than tensors and plain values, reading it would "
                f"run code from the file, so it was not read ({_first_line(error)}). Ask for a "
                "safetensors file, or load and re-save its state_dict where you trust it."
            ) from error
        raise InputError(
            f"checkpoint: {path} is not a checkpoint that torch can read "
            f"({path.stat().st_size} bytes, {_first_line(error)}). Was the download complete?"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise InputError(
            f"checkpoint: {path} is damaged or cut short ({path.stat().st_size} bytes, "
            f"{_first_line(error)}). Copy or download it again."
        ) from error
    return _wrapped(content, path)


def write_weights(
    path: str | Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], dtype: torch.dtype
) -> None:
    """Write floating tensors of `state` as `dtype` to a safetensors file, whole or not at all.

    Args:
        meta: values that JSON can hold; `read` returns them as "meta".
    """
    path = Path(path)
    tensors = {name: _narrowed(tensor.detach().cpu(), dtype) for name, tensor in state.items()}
    with replaced(path) as temporary:
        save_file(tensors, temporary, metadata={"swin_dense": json.dumps(meta)})


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy in `dtype`; whole numbers, and what would overflow, keep their own."""
    narrow = tensor.to(dtype) if tensor.is_floating_point() else tensor
    fits = bool((narrow.isfinite() == tensor.isfinite()).all())
    return (narrow if fits else tensor).clone().contiguous()


def require_place(path: str | Path, what: str) -> None:
    """Refuse a place nothing can be written to, before the work whose result would go there.

    Raises:
        InputError: a file stands where a folder must be, or the folder may not be written to.
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        reason = "may not be written to" if place.is_dir() else "is a file, not a folder"
        raise InputError(f"{what} {path}: {place} {reason}. Choose another place.")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place once it is written without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    device = map_location if isinstance(map_location, str) else "cpu"
    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("swin_dense", "{}"))
    except SafetensorError as error:
        raise InputError(
            f"checkpoint: {path} is damaged or cut short ({path.stat().st_size} bytes, {error}). "
            "Copy or download it again."
        ) from error
    return {"state_dict": state, "meta": meta}


def _wrapped(content: Any, path: Path) -> dict[str, Any]:
    if isinstance(content, Mapping):
        for key in ("state_dict", "model"):
            if isinstance(content.get(key), Mapping):
                return {**content, "state_dict": content[key]}
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {"state_dict": content}
    found = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
    raise InputError(
        f"checkpoint: {path} holds no weights: expected name -> tensor, or such a dict under "
        f"'state_dict' or 'model'; found {found}."
    )


def _is_torch_archive(path: Path) -> bool:
    return zipfile.is_zipfile(path)


def _first_line(error: Exception) -> str:
    """torch advises to switch its protection off; the first sentence holds the cause."""
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return line.strip().split(". ")[0][:160]
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:160]
