"""Where the numbers of a run are shown beside its log: mmengine's visualization back ends."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from swin_dense.errors import InputError


class Tracker(NamedTuple):
    """A back end of mmengine, the package it is of, and modules of which one has to be there."""

    back_end: str
    package: str
    modules: tuple[str, ...]


NAMED = {  # what the commands call them
    "tensorboard": Tracker(
        "TensorboardVisBackend", "tensorboard", ("torch.utils.tensorboard", "tensorboardX")
    ),
    "wandb": Tracker("WandbVisBackend", "wandb", ("wandb",)),
    "mlflow": Tracker("MLflowVisBackend", "mlflow", ("mlflow",)),
}
KNOWN = {tracker.back_end: tracker for tracker in NAMED.values()} | {
    f"{name}VisBackend": Tracker(f"{name}VisBackend", name.lower(), (name.lower(),))
    for name in ("ClearML", "Neptune", "DVCLive", "Aim")
}


def add(config: Config, names: Sequence[str]) -> None:
    """Have the numbers of a run shown in these, too; one that the config states stays as it is."""
    shown = config.setdefault("visualizer", ConfigDict(type="Visualizer"))
    found = list(shown.get("vis_backends") or [ConfigDict(type="LocalVisBackend")])
    for name in dict.fromkeys(names):
        if NAMED[name].back_end not in map(_kind, found):
            found.append(ConfigDict(type=NAMED[name].back_end))
    shown["vis_backends"] = found


def require_installed(config: Mapping[str, Any]) -> None:
    """Check that what a config shows its numbers in can be imported.

    Raises:
        InputError: a package is missing, or another that it needs.
    """
    for part in (config.get("visualizer") or {}).get("vis_backends") or ():
        if tracker := KNOWN.get(_kind(part)):
            _require(tracker)


@contextmanager
def refusals(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn what a tracker raises when it is started (no account, no server) into an InputError."""
    try:
        yield
    except Exception as error:
        for part in (config.get("visualizer") or {}).get("vis_backends") or ():
            tracker = KNOWN.get(_kind(part))
            if tracker and type(error).__module__.split(".")[0] in tracker.modules:
                raise InputError(
                    f"{tracker.package} did not start: {error}. Set it up as its documentation "
                    f"says, or leave {tracker.back_end} (`log_to`) out."
                ) from error
        raise


def _require(tracker: Tracker) -> None:
    why: ImportError | None = None
    for module in tracker.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            why = why or error
        else:
            return
    within = f" ({why.name} is missing)" if why and why.name and why.name != tracker.package else ""
    raise InputError(
        f"visualizer: {tracker.back_end} (`log_to`) needs the package {tracker.package}, which is "
        f"not installed{within}: pip install {tracker.package}. Or leave it out: the log, "
        "scalars.json and curve.png are written anyway."
    ) from why


def _kind(part: Any) -> str:
    return str(part.get("type", "")).rpartition(".")[2] if isinstance(part, Mapping) else ""
