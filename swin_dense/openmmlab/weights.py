"""mmengine's loading and saving of weight files, made safe and whole.

Importing this module replaces mmengine's loader for local paths, which falls back to unpickling
a file it cannot read safely, and its local writer, which leaves half a file when interrupted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.fileio import register_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from swin_dense.checkpoints import files, matching
from swin_dense.errors import InputError

WHOLE = 1.0  # to test or to draw, every weight of the model must come from the file
START = 0.5  # to start training from, at least half must
BACKBONE = 0.9  # pretrained backbones lack little: the norms in front of the heads


@CheckpointLoader.register_scheme(prefixes="", force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """mmengine's door to a local file; the name is what its log prints."""
    return files.read(filename, map_location or "cpu")


@register_backend("local", prefixes="", force=True)
class WholeFileBackend(LocalBackend):
    """A local file is written beside its place and moved there when complete."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with files.replaced(Path(filepath)) as temporary:
            temporary.write_bytes(obj)


def lay_in(
    module: nn.Module, state: Mapping[str, Any], path: str, share: float, advice: str
) -> matching.Match:
    """Load what fits of `state` into `module` and log what did not; refuse below `share`.

    Raises:
        InputError: less than `share` of the module's numbers are in the file.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    match = matching.compare(module.state_dict(), state)
    matching.require(match, path, share, advice)
    module.load_state_dict({name: state[name] for name in match.fitting}, strict=False)
    print_log(f"weights from {path}: {match.describe()}", logger="current")
    return match


def load_pretrained(backbone: nn.Module, path: str) -> matching.Match:
    """Start a backbone from a classification checkpoint or from another detector's backbone."""
    state = CheckpointLoader.load_checkpoint(path, "cpu")
    state = {n.removeprefix("module."): t for n, t in state["state_dict"].items()}
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    return lay_in(
        backbone,
        inner or state,
        path,
        BACKBONE,
        "Is this file for the same architecture (depths, widths, window)?",
    )


def class_names(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names a training run stored with its weights, if it did."""
    meta = checkpoint.get("meta") or {}
    names = (meta.get("dataset_meta") or {}).get("classes") or meta.get("classes")
    return tuple(names) if names else None


def require_classes(
    trained: tuple[str, ...], asked: tuple[str, ...], path: str, ordered: bool
) -> None:
    """Weights and data must speak of the same classes.

    Args:
        ordered: whether the order counts too, as it does where values carry no names.

    Raises:
        InputError: with the names that have no partner on either side.
    """
    only_weights = [n for n in trained if n not in asked]
    only_data = [n for n in asked if n not in trained]
    if only_weights or only_data:
        raise InputError(
            f"checkpoint: {path} was trained for {len(trained)} classes, the data has "
            f"{len(asked)}. Only in the checkpoint: {only_weights or 'none'}. Only in the data: "
            f"{only_data or 'none'}. Test on the data set it was trained for, or rename classes."
        )
    if ordered and trained != asked:
        raise InputError(
            f"checkpoint: {path} knows the classes in another order than the label maps' values. "
            f"Checkpoint: {list(trained)}. Data: {list(asked)}. Give the --classes file of the "
            "training."
        )
