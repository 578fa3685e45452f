"""mmengine's ways to a checkpoint, each by our reader: `install` puts them into its place.

mmengine prints the end of a loader's name, from its tenth letter, in its log.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.fileio import get_local_path
from mmengine.runner import checkpoint as mmengine_checkpoint

from swin_dense.checkpoints import files
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.datasets import colours
from swin_dense.errors import InputError, nearest
from swin_dense.openmmlab.engine import weights


def load_from_local(filename: str, map_location: Any = None) -> Checkpoint:
    """Read the checkpoint that a path or an address stands for.

    Raises:
        InputError: it cannot be had or not be read safely.
    """
    return with_classes(weights.read(filename, map_location))


def load_from_catalogue(filename: str, map_location: Any = None) -> Checkpoint:
    """Read what a name such as "torchvision://resnet50" or "open-mmlab://..." stands for."""
    scheme, _, name = filename.partition("://")
    addresses = CATALOGUES[scheme]()
    if scheme in ("open-mmlab", "openmmlab"):
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    if name not in addresses:
        raise InputError(
            f"checkpoint: {scheme} knows no {name!r}.{nearest(name, addresses)} Give a path or an "
            "address."
        )
    address = addresses[name]
    if "://" not in address:  # a user's own table may name files beside it
        address = str(Path(mmengine_checkpoint._get_mmengine_home()) / address)
    return load_from_local(address, map_location)


def load_from_store(filename: str, map_location: Any = None) -> Checkpoint:
    """Read a file of a store that mmengine's file client "petrel" reaches."""
    with get_local_path(filename, backend_args={"backend": "petrel"}) as path:
        return with_classes(files.read(path, map_location or "cpu", source=filename))


def load_from_pavi(filename: str, map_location: Any = None) -> Checkpoint:
    """Refuse a store whose client we cannot test.

    Raises:
        InputError: always.
    """
    raise InputError(f"checkpoint: {filename} lies in a store that is not supported. Download it.")


def with_classes(checkpoint: Checkpoint) -> Checkpoint:
    """Add the class names a file has to where mmdet and mmseg look for them, with colours."""
    meta = checkpoint["meta"] = dict(checkpoint.get("meta") or {})
    names = weights.class_names(checkpoint)
    if names and meta.keys().isdisjoint(("dataset_meta", "CLASSES")):
        things = weights.thing_names(checkpoint)
        meta["dataset_meta"] = {"classes": names, "palette": colours.palette(len(names))}
        meta["dataset_meta"] |= {"thing_classes": things} if things else {}
    return checkpoint


CATALOGUES: dict[str, Callable[[], dict[str, str]]] = {
    "torchvision": lambda: mmengine_checkpoint.get_torchvision_models(),
    "modelzoo": lambda: mmengine_checkpoint.get_torchvision_models(),
    "open-mmlab": lambda: mmengine_checkpoint.get_external_models(),
    "openmmlab": lambda: mmengine_checkpoint.get_external_models(),
    "mmcls": lambda: mmengine_checkpoint.get_mmcls_models(),
}
# As mmengine matches them: regular expressions of the beginning.
SCHEMES: dict[str, Callable[..., Checkpoint]] = {
    **dict.fromkeys(("", "http://", "https://", "hf://"), load_from_local),
    **dict.fromkeys((f"{name}://" for name in CATALOGUES), load_from_catalogue),
    **dict.fromkeys((r"(\S+\:)?s3://", r"(\S+\:)?petrel://"), load_from_store),
    "pavi://": load_from_pavi,
}
