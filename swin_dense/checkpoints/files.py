"""Read and write weight files. Tensors and plain values only: nothing in a file is ever run.

A checkpoint is a dict with "state_dict" (name -> tensor) and, when the file has them, "meta"
and what a run needs to resume. Bare state dicts and {"model": ...} files are wrapped alike; an
average of the weights is taken only from a file that holds nothing else. What a file is
(safetensors, torch's archive, torch's older form, a pickle of arrays) is told by its bytes.
"""

import contextlib
import errno
import hashlib
import json
import os
import pickle
import re
import reprlib
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from swin_dense.checkpoints import bounds, pickles, wrappers
from swin_dense.errors import InputError, MissingInputError, nearest

ARCHIVE = b"PK"
OLD_FORM = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # torch's number as pickled, first in the file
HEAD = 32  # bytes that tell what a file is
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
DEPTH = 4  # dicts around the weights; a hostile one may hold itself
TRUST = (
    "Ask for a safetensors file. Or, if you trust the one who made it and know that it came to you "
    "unchanged: python tools/convert.py --trust {path} {stem}.safetensors"
)


class Checkpoint(dict[str, Any]):
    """The content of a file and where it lies.

    Attributes:
        path: the file.
        source: what the user called it: a path, an address or a name of the catalogue.
        no_tensors: names among the weights that hold something else -> what.
        average: the key under which the weights lay, if they are an average of others; else "".
    """

    path: Path
    source: str
    no_tensors: dict[str, str]
    average: str = ""

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        # Saved again, it is an ordinary dict that any reader may load.
        return OrderedDict, (list(self.items()),)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Give the tensors, without what distributed and compiled training put into their names."""
        return wrappers.without_machinery(self["state_dict"])


def read(
    path: str | Path, map_location: Any = "cpu", *, source: str = "", trust: bool = False
) -> Checkpoint:
    """Return the checkpoint in a file (.safetensors, .pth, .pt, .bin, or a .pkl of arrays).

    Of weights in several files, give their index, model.safetensors.index.json.

    Args:
        source: what to call it in messages; the path if empty.
        trust: unpickle it, which runs whatever code its maker put into it.

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
            "A run writes its checkpoints to its `work_dir`."
        )
    index = _SHARD.sub("", path.stem) + path.suffix + ".index.json"
    if _SHARD.search(path.stem) and (path.parent / index).is_file():
        raise InputError(
            f"checkpoint: {path} is one of several files that hold the weights together. Give "
            f"their index, {path.parent / index}."
        )
    content = _unpickled(path, map_location) if trust else _content(path, map_location)
    checkpoint = _wrapped(content, path)
    if not trust and path.suffix != ".json":
        _require_tensors(path, checkpoint["state_dict"])
    checkpoint.path, checkpoint.source = path, source or str(path)
    return checkpoint


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write `state` to a safetensors file, whole or not at all.

    Args:
        meta: values that JSON can hold; `read` returns them as "meta".
        dtype: for floating tensors; None leaves each its own.
    """
    path = Path(path)
    tensors = {
        name: _narrowed(tensor.detach().cpu(), dtype or tensor.dtype)
        for name, tensor in state.items()
    }
    with replaced(path) as temporary:
        save_file(tensors, temporary, metadata={"swin_dense": json.dumps(meta)})


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy in `dtype`; whole numbers, and what would overflow, keep their own."""
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
    """Yield a file beside `path` that takes its place once it is written without an error."""
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


def _content(path: Path, map_location: Any) -> Any:
    head = _head(path)
    if path.suffix == ".json":
        return _read_shards(path, map_location)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path, map_location)
    pickled = head.startswith(b"\x80") or path.suffix in (".pkl", ".pickle")
    if pickled and OLD_FORM not in head and not head.startswith(ARCHIVE):
        return _read_pickle(path)
    if not head.startswith(ARCHIVE) and OLD_FORM not in head:
        raise _not_of_torch(path, f"it begins with {head[:8]!r}")
    try:
        bounds.require_torch(path, path.stat().st_size)
        with torch.serialization.safe_globals(pickles.STAND_INS):
            content = torch.load(path, map_location=map_location, weights_only=True)
        return pickles.finished(content)
    except bounds.TooMuchError as error:
        raise _too_much(path, error) from error
    except pickle.UnpicklingError as error:
        if head.startswith(ARCHIVE) or "Unsupported" in str(error):
            raise _would_run_code(path, _cause(error)) from error
        raise _not_of_torch(path, _cause(error)) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # what lies in the file may send torch to such a place
            raise
        raise _damaged(path, error) from error
    except Exception as error:  # whatever a broken or hostile file can raise is the file's mistake
        raise _damaged(path, error) from error


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _read_safetensors(path: Path, map_location: Any) -> dict[str, Any]:
    device = map_location if isinstance(map_location, str) else "cpu"
    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get("swin_dense", "{}"))
    except OSError:
        raise
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    return {"state_dict": state, "meta": meta if isinstance(meta, dict) else {}}


def _read_shards(path: Path, map_location: Any) -> dict[str, Any]:
    """Join the files that an index names, the way save_pretrained of transformers writes them."""
    try:
        places = json.loads(path.read_text())["weight_map"]
        wanted = {str(name): str(place) for name, place in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"checkpoint: {path} is JSON but no index of weight files, which has a 'weight_map' "
            "(tensor -> file). Give the weights themselves."
        ) from error
    parts, state = sorted(set(wanted.values())), {}
    for part in parts:
        # A name, not a path: an index does not reach beyond its folder.
        if Path(part).name != part or Path(part).suffix == ".json":
            raise InputError(f"checkpoint: {path} names {part!r}, which is no file beside it.")
        if not (path.parent / part).is_file():
            raise MissingInputError(
                f"checkpoint: {path} is the index of {len(parts)} files, and {part} is not beside "
                "it. Fetch all of them into one folder."
            )
        found = _innermost(_content(path.parent / part, map_location))[0] or {}
        _require_tensors(path.parent / part, found)
        state.update({str(name): tensor for name, tensor in found.items()})
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise InputError(
            f"checkpoint: {path} promises {len(wanted)} tensors, its files lack {len(missing)} of "
            f"them, the first is {missing[0]}. Fetch them again."
        )
    return {"state_dict": state}


def _require_tensors(path: Path, state: Mapping[str, Any]) -> None:
    try:
        bounds.require_tensors(state.values(), path.stat().st_size)
    except bounds.TooMuchError as error:
        raise _too_much(path, error) from error


def _read_pickle(path: Path) -> Any:
    try:
        return pickles.read(path)
    except pickles.RefusedError as error:
        raise _would_run_code(path, str(error)) from error
    except bounds.TooMuchError as error:
        raise _too_much(path, error) from error
    except pickle.UnpicklingError as error:
        raise _damaged(path, error) from error


def _unpickled(path: Path, map_location: Any) -> Any:
    """Return the content of a file whose maker is trusted; safe readers come first."""
    try:
        return _content(path, map_location)
    except InputError:
        pass
    try:
        if _head(path).startswith(ARCHIVE) or OLD_FORM in _head(path):
            return torch.load(path, map_location=map_location, weights_only=False)
        with open(path, "rb") as file:
            return pickle.load(file, encoding="latin1")
    except OSError:
        raise
    except Exception as error:  # whatever the code in the file raises
        raise InputError(
            f"checkpoint: {path} cannot be unpickled here ({type(error).__name__}: "
            f"{_cause(error)}). It may need the packages that it was written with."
        ) from error


def _wrapped(content: Any, path: Path) -> Checkpoint:
    state, keys = _innermost(content)
    whole = dict(content) if keys else {}
    tensors, others = {}, {}
    for name, value in (state or {}).items():
        if not isinstance(value, Tensor):
            value = _of_array(value)
        if isinstance(value, Tensor):
            tensors[str(name)] = value
        else:
            others[str(name)] = f"no tensor but {type(value).__name__}"
    if not tensors:
        mapping = isinstance(content, Mapping)
        found = [reprlib.repr(k) for k in list(content)[:5]] if mapping else type(content).__name__
        raise InputError(
            f"checkpoint: {path} holds no weights: expected name -> tensor, or such a dict under "
            f"'state_dict' or 'model'; found {', '.join(found) if mapping else found}."
        )
    checkpoint = Checkpoint({**whole, "state_dict": tensors})
    checkpoint.no_tensors = others
    checkpoint.average = next((key for key in keys if key in wrappers.AVERAGE_KEYS), "")
    return checkpoint


def _innermost(content: Any) -> tuple[Any, list[str]]:
    """Return the weights in the content of a file, and the keys under which they lie."""
    keys: list[str] = []
    while isinstance(content, Mapping) and len(keys) < DEPTH:
        key = next(
            (k for k in wrappers.ALL_KEYS if isinstance(content.get(k), Mapping) and content[k]),
            None,
        )
        if key is None:
            break
        content = content[key]
        keys.append(key)
    bare = isinstance(content, Mapping) and all(isinstance(v, Tensor) for v in content.values())
    return (content if keys or bare else None), keys


def _of_array(value: Any) -> Any:
    """Return a numpy array of a trusted pickle as a tensor, anything else as it is."""
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        return torch.from_numpy(value.copy())
    return value


def _would_run_code(path: Path, what: str) -> InputError:
    advice = TRUST.format(path=path, stem=path.with_suffix("").name)
    return InputError(
        f"checkpoint: {path} holds more than tensors and plain values, reading it would run code "
        f"from the file, so it was not read ({what}). {advice}"
    )


def _too_much(path: Path, error: Exception) -> InputError:
    return InputError(f"checkpoint: {path} was not read: it has {str(error).rstrip('.')}.")


def _not_of_torch(path: Path, cause: str) -> InputError:
    return InputError(
        f"checkpoint: {path} is not a checkpoint that torch can read "
        f"({path.stat().st_size} bytes, {cause}). Was the download complete?"
    )


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"checkpoint: {path} is damaged or cut short ({path.stat().st_size} bytes, "
        f"{_cause(error)}). Copy or download it again."
    )


def _cause(error: Exception) -> str:
    """Return the cause alone; torch goes on to advise to switch its protection off."""
    for line in str(error).splitlines():
        if "Unsupported" in line or "GLOBAL" in line:
            return line.strip().split(". ")[0][:160]
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:160]
