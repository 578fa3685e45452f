"""Have our commands read files by our own readers, whatever a config calls the steps.

Configs name OpenMMLab's steps, LoadImageFromFile and LoadAnnotations, so that every tool of
OpenMMLab can use them. Ours obey the orientation tag, scale 16 bits, check sizes and label values,
and name a damaged file; they take the place when a loader is built. The config stays as it is.
"""

import ast
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import CocoInstances, LabelMaps
from swin_dense.openmmlab.settings.sections import LOADERS
from swin_dense.registry import DATASETS

LIBRARIES = ("", "mmcv", "mmdet", "mmseg")
# The values of a step's arguments that ask for what our reader does; with others it is left alone.
OF_IMAGES: dict[str, tuple] = {
    "to_float32": (False,),
    "color_type": ("color",),
    "imdecode_backend": ("cv2", "pillow"),
    "ignore_empty": (False,),
    "file_client_args": (None,),
    "backend_args": (None,),
}
OF_LABEL_MAPS: dict[str, tuple] = {
    "reduce_zero_label": (None, False),  # the data set's label table says which value is which
    "ignore_index": (255,),
    "imdecode_backend": ("cv2", "pillow"),
    "file_client_args": (None,),
    "backend_args": (None,),
}
LABELS_ALONE, LABELS_BESIDE = "alone", "beside"


def with_ours(loader: Any) -> Any:
    """Return a loader's config whose data sets read by our readers; one already built as it is."""
    if not isinstance(loader, Mapping) or not isinstance(loader.get("dataset"), Mapping):
        return loader
    return {**loader, "dataset": _of_data(loader["dataset"])}


def our_steps(pipeline: Sequence[Any], labels: str | None = None) -> list[Any]:
    """Return the steps of a pipeline with our readers in the place of OpenMMLab's.

    Args:
        labels: how label maps are read: LABELS_ALONE as in mmseg, LABELS_BESIDE boxes as in mmdet,
            None where the data set has no label table of ours.
    """
    steps: list[Any] = []
    for step in pipeline:
        if _asks_for(step, "LoadImageFromFile", OF_IMAGES):
            steps.append({"type": "swin_dense.LoadImage"})
        elif labels == LABELS_ALONE and _asks_for(step, "LoadAnnotations", OF_LABEL_MAPS):
            steps.append({"type": "swin_dense.LoadLabelMap"})
        elif labels == LABELS_BESIDE and _reads_both(step):
            rest = {k: v for k, v in step.items() if k not in OF_LABEL_MAPS and k != "with_seg"}
            steps += [rest, {"type": "swin_dense.LoadLabelMap"}]
        else:
            steps.append(step)
    return steps


def name_pipelines(config: Config) -> None:
    """Let the names train_pipeline and test_pipeline say what the loaders have, where they exist.

    Nothing trains by these names, but mmseg's inference reads test_pipeline from a written config.
    """
    for split in ("train", "test"):
        node = config.get(LOADERS[split]) or {}
        while "dataset" in node:
            node = node["dataset"]
        if f"{split}_pipeline" in config and "pipeline" in node:
            config[f"{split}_pipeline"] = copy.deepcopy(node["pipeline"])


def check_pipelines(config: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a pipeline that a file states under a name that no loader of it takes.

    Raises:
        InputError: as in a config that inherits its loaders and states train_pipeline alone.
    """
    if Path(path).suffix != ".py":
        return
    stated = {
        target.id
        for statement in ast.parse(Path(path).read_text(encoding="utf-8-sig")).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    for split in ("train", "test"):
        name = f"{split}_pipeline"
        if name in stated and name in config and not _has(config.get(LOADERS[split]), config[name]):
            raise InputError(
                f"config: {path} states {name}, but {LOADERS[split]} has another pipeline, and "
                f"that is the one in use. Add {LOADERS[split]} = dict(dataset=dict(pipeline={name}"
                "))."
            )


def _has(node: Any, pipeline: Any) -> bool:
    if isinstance(node, Mapping):
        return any(_has(value, pipeline) for value in node.values())
    return node == pipeline or (
        isinstance(node, list | tuple) and any(_has(part, pipeline) for part in node)
    )


def _of_data(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a data set's config, and those that it wraps or joins, with our readers."""
    found = dict(dataset)
    if isinstance(found.get("dataset"), Mapping):
        found["dataset"] = _of_data(found["dataset"])
    if isinstance(found.get("datasets"), list | tuple):
        found["datasets"] = [
            _of_data(d) if isinstance(d, Mapping) else d for d in found["datasets"]
        ]
    if found.get("pipeline"):
        found["pipeline"] = our_steps(found["pipeline"], _labels_of(found))
    return found


def _labels_of(dataset: Mapping[str, Any]) -> str | None:
    kind = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, LabelMaps):
        return LABELS_ALONE
    return LABELS_BESIDE if isinstance(kind, type) and issubclass(kind, CocoInstances) else None


def _asks_for(step: Any, name: str, honoured: Mapping[str, tuple], also: tuple = ()) -> bool:
    """Say whether a step is OpenMMLab's `name` with arguments that our reader honours."""
    if not isinstance(step, Mapping):
        return False
    library, _, kind = str(step.get("type")).rpartition(".")
    if kind != name or library not in LIBRARIES:
        return False
    return all(
        value in honoured.get(key, ()) for key, value in step.items() if key not in ("type", *also)
    )


def _reads_both(step: Any) -> bool:
    """Say whether a step is mmdet's LoadAnnotations, and reads a label map, too."""
    own = ("with_bbox", "with_label", "with_mask", "with_seg", "poly2mask", "box_type")
    return _asks_for(step, "LoadAnnotations", OF_LABEL_MAPS, own) and bool(step.get("with_seg"))
