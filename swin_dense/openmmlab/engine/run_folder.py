"""The folder of a run: whose it is, what it holds to go on from, and what a killed run left."""

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from swin_dense.checkpoints import files
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.errors import InputError

try:
    import fcntl
except ImportError:  # Windows; there a run is not kept from the folder of another
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_CHECKPOINT = re.compile(r"(iter|epoch)_(\d+)\.pth")
_LEFTOVER = re.compile(r"\..+\.(pth|safetensors|json|png|html)\.[a-z0-9_]{8}")


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and sweep away what killed ones left half written.

    Raises:
        InputError: another run, named by its process and machine, writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    with open(lock, "a+", encoding="utf-8") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise InputError(
                    f"`work_dir`: another run writes to {folder} ({file.read().strip()}). Wait "
                    "for its end, or choose another folder."
                ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        for one in folder.iterdir():
            if _LEFTOVER.fullmatch(one.name):
                one.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def newest(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint of a run that can be read, None if the folder holds none.

    Raises:
        InputError: it holds some, and none can be read.
    """
    found = [one for one in folder.glob("*.pth") if _CHECKPOINT.fullmatch(one.name)]
    kinds = {one.name.partition("_")[0] for one in found}  # copies are as old as their copying
    found.sort(key=lambda one: (len(kinds) > 1 and one.stat().st_mtime_ns, _number(one)))
    broken: list[str] = []
    for one in reversed(found):
        try:
            content = files.read(one)
            if "iter" in content.get("meta", {}):
                for line in broken:
                    say(line)
                if broken:
                    say(f"resume: going on from {one.name}, the newest that can be read")
                return content
            broken.append(f"resume: {one.name} holds weights only")
        except (InputError, OSError) as error:
            broken.append(f"resume: {one.name} was not written to its end ({error})")
    if broken:
        raise InputError(
            f"`resume`: none of the {len(broken)} checkpoints in {folder} can be read. Leave "
            "`resume` out to start anew, in another folder."
        )
    return None


def _number(path: Path) -> int:
    found = _CHECKPOINT.fullmatch(path.name)
    return int(found[2]) if found else -1
