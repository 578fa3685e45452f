"""Find weights by what a user calls them, and fetch them where they are not here yet.

A name of a file that an architecture publishes, an https address, hf://OWNER/REPOSITORY/FILE, or a
path. What is fetched lies in torch's cache (TORCH_HOME) under its final name only when it is whole
and agrees with its hash. SWIN_DENSE_OFFLINE=1 or HF_HUB_OFFLINE=1 forbid the network.
"""

import contextlib
import fcntl
import hashlib
import http.client
import importlib.util
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from swin_dense.checkpoints import files
from swin_dense.checkpoints.architecture import published
from swin_dense.errors import InputError, nearest

REMOTE = re.compile(r"(https?|hf)://")
NAMED_HASH = re.compile(r".*-([0-9a-f]{8,64})\.\w+")  # tiny-1cdeb081.pth, as torch.hub has it
SWITCHES = ("SWIN_DENSE_OFFLINE", "HF_HUB_OFFLINE")
HERE = ("localhost", "127.0.0.1", "::1")
SECONDS = 30  # without an answer


def locate(source: str, say: Callable[[str], object] = print) -> Path:
    """Return the file that `source` names, fetched if it has to be.

    Raises:
        InputError: it cannot be had, or is not what it should be.
    """
    if REMOTE.match(source):
        return _hub(source, say) if source.startswith("hf://") else _address(source, say)
    found = published().get(source)
    if found and not Path(source).expanduser().exists():
        return fetch(found.url, cache() / found.file, found.sha256, say)
    return Path(source)


def hint(source: str) -> str:
    """Return the nearest name of a published file, for what is neither a file nor such a name."""
    return nearest(source, published())


def cache() -> Path:
    """Return the folder of fetched files."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(url: str, to: Path, sha256: str | None, say: Callable[[str], object] = print) -> Path:
    """Download `url` unless `to` is there already.

    Args:
        sha256: what the file's hash begins with; None if nobody published it. Then the hash of
            the first download is kept beside the file, and later loads must agree with it.

    Raises:
        InputError: there is no network, or not that file, or the file is another.
    """
    note = to.with_name(f"{to.name}.sha256")
    if not to.is_file():
        with _alone(to):
            if not to.is_file():  # else another process fetched it meanwhile
                _download(url, to, sha256, say)
                if sha256 is None:
                    _keep(note, files.sha256(to), say)
                return to
    found = files.sha256(to)
    expected = sha256 or (note.read_text().split()[0] if note.is_file() else "")
    if not found.startswith(expected):
        raise InputError(
            f"weights: {to} has the sha256 {found}, expected {expected}. It is damaged or another "
            f"file: delete it, then it is fetched anew from {url}."
        )
    return to


def _keep(note: Path, sha256: str, say: Callable[[str], object]) -> None:
    with files.replaced(note) as temporary:
        temporary.write_text(f"{sha256}  {note.stem}\n")
    say(f"sha256 {sha256}: nobody published one, so this one is kept in {note}")


def _address(url: str, say: Callable[[str], object]) -> Path:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in HERE:
        raise InputError(
            f"weights: {url} would come unprotected, anybody on the way could change it. Use an "
            "https address, or download it yourself and give the path."
        )
    name = Path(urllib.parse.unquote(parts.path)).name
    if not name:
        raise InputError(f"weights: {url} names no file. Give the address of a weight file.")
    known = next((file for file in published().values() if file.url == url), None)
    if known:
        return fetch(url, cache() / known.file, known.sha256, say)
    stamped = NAMED_HASH.fullmatch(name)
    # Two projects may use one file name.
    folder = cache() / hashlib.sha256(url.encode()).hexdigest()[:12]
    return fetch(url, folder / name, stamped[1] if stamped else None, say)


def _hub(source: str, say: Callable[[str], object]) -> Path:
    """Fetch hf://OWNER/REPOSITORY/FILE by huggingface_hub where there is one, else by address."""
    owner, _, rest = source.removeprefix("hf://").partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise InputError(f"weights: write hf://OWNER/REPOSITORY/FILE, not {source}.")
    if importlib.util.find_spec("huggingface_hub") is None:
        host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        return _address(f"{host}/{owner}/{repository}/resolve/main/{file}", say)
    hub = importlib.import_module("huggingface_hub")
    try:
        found = hub.hf_hub_download(
            f"{owner}/{repository}", file, local_files_only=_forbidden() is not None
        )
    except Exception as error:  # its errors come from requests, httpx or itself, by version
        raise InputError(
            f"weights: {source} could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}). Download it yourself and give the path."
        ) from error
    return Path(found)


def _download(url: str, to: Path, sha256: str | None, say: Callable[[str], object]) -> None:
    if switch := _forbidden():
        raise InputError(
            f"weights: {to.name} is not here and {switch} forbids the network. Download {url} "
            f"elsewhere and put it at {to}."
        )
    say(f"downloading {url} to {to}")
    handle, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
    os.close(handle)
    part = Path(name)
    try:
        length = _length(url)
        torch.hub.download_url_to_file(url, str(part), sha256, progress=length > 2**24)
        if length and part.stat().st_size != length:
            raise InputError(
                f"weights: {url} broke off after {part.stat().st_size} of {length} bytes; nothing "
                "was kept. Try again."
            )
        os.replace(part, to)
    except urllib.error.HTTPError as error:
        raise InputError(
            f"weights: {url} answers {error.code} {error.reason}. Check the address, or download "
            f"the file elsewhere and put it at {to}."
        ) from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"weights: {url} cannot be reached ({reason}). Without a network, download it "
            f"elsewhere and put it at {to}."
        ) from error
    except RuntimeError as error:  # torch's word for a hash that differs
        raise InputError(
            f"weights: {url} is not the file it should be ({error}); nothing was kept. Somebody "
            "changed it or the connection did: try again, or ask where else it is published."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _length(url: str) -> int:
    """Return the bytes of the file by the server's word, 0 if it says nothing."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "torch.hub"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.headers.get("Content-Length") or 0)
    except urllib.error.HTTPError as error:
        if error.code in (403, 405, 501):  # this server answers no such question
            return 0
        raise


def _forbidden() -> str | None:
    """Return the switch that forbids the network, if one does."""
    for name in SWITCHES:
        if os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
            return f"{name}={os.environ[name]}"
    return None


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Make other processes wait; after the first has fetched a file the others find it."""
    files.require_place(to.parent, "weights cache (TORCH_HOME)")
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(to.with_name(f".{to.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
