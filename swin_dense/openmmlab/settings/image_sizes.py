"""Sizes of images in a config: at which papers count, at which it trains, and how to change them.

Ours are (height, width). Configs state scales as (longer, shorter) and crops of mmdet as (width,
height). Images are taken for landscape.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config

from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import sections
from swin_dense.task import Task

Size = tuple[int, int]
PATCHES = 32  # pixels: the coarsest stride, to which detectors pad
RESIZING = ("Resize", "RandomResize", "RandomChoiceResize", "ResizeShortestEdge", "FixScaleResize")
IN_TURN = ("Compose", "RandomOrder", "KeyMapper", "TransformBroadcaster", "ProposalBroadcaster")


def paper_shape(config: Config) -> Size:
    """Return (height, width) at which papers count: 800x1280 for COCO, s x 4s for label maps."""
    if Task.of(config) is not Task.SEMANTIC:
        return 800, 1280
    scales = [step.get("scale") for step in sections.walk(config.get("test_dataloader") or {})]
    sides = [min(scale) for scale in scales if isinstance(scale, list | tuple)]
    if not sides:
        raise InputError(
            "config: test_dataloader resizes images to no scale (longer, shorter side), so that "
            "there is no size to count at. Give one as `shape`."
        )
    return min(sides), 4 * min(sides)


def training_shape(config: Config) -> Size | None:
    """Return (height, width) of the largest image of a training step; None where nothing states it.

    Each side is the largest by itself, as a batch is padded to both.
    """
    loader = config.get("train_dataloader") or {}
    rows_first = Task.of(config) is Task.SEMANTIC
    size = _of_data(loader.get("dataset") or {}, rows_first)
    preprocessor = config.model.get("data_preprocessor") or {}
    size = _largest([size, preprocessor.get("size")])
    divisor = preprocessor.get("pad_size_divisor") or preprocessor.get("size_divisor") or 1
    return size and _rounded_up(size, divisor)


def pad_to_crop(config: Config) -> None:
    """Pad smaller images to the crop of the data in training, where this is left open."""
    preprocessor = config["model"].get("data_preprocessor") or {}
    steps = sections.walk((config.get(sections.LOADERS["train"]) or {}).get("dataset"))
    crops = [step["crop_size"] for step in steps if step.get("type") == "RandomCrop"]
    if (
        Task.of(config) is Task.SEMANTIC
        and crops
        and preprocessor.keys().isdisjoint(("size", "size_divisor"))
    ):
        preprocessor["size"] = tuple(crops[-1])


def scale_images(config: Config, scale: tuple[int, int]) -> None:
    """Resize every image to fit `scale` (longer, shorter side), in training and in tests.

    Crops, and what they are padded to, become no larger than the longer side.
    """
    longer = -(-scale[0] // PATCHES) * PATCHES
    parts = {name: config[name] for name in sections.LOADERS.values() if name in config}
    preprocessor = (config.get("model") or {}).get("data_preprocessor") or {}
    for node in [*sections.walk(parts), preprocessor]:
        if "scale" in node:  # a list of two is a range
            ranged = isinstance(node["scale"], list)
            node["scale"] = [tuple(scale)] * 2 if ranged else tuple(scale)
        if "scales" in node:
            node["scales"] = [tuple(scale)]
        for key in ("crop_size", "size"):
            if isinstance(node.get(key), list | tuple):
                node[key] = tuple(min(side, scale[0]) for side in node[key])
    if preprocessor.get("pad_size_divisor", 1) > longer:  # a square of one size, as ViTDet's
        preprocessor["pad_size_divisor"] = longer


def _of_data(dataset: Mapping[str, Any], rows_first: bool) -> Size | None:
    """Return the size of a data set and those that it wraps or joins.

    Args:
        rows_first: whether crops are (height, width), as mmseg has them.
    """
    inner = [*dataset.get("datasets", ()), *([dataset["dataset"]] if "dataset" in dataset else ())]
    size = _largest(_of_data(part, rows_first) for part in inner)
    return _after(dataset.get("pipeline") or (), size, rows_first)


def _after(steps: Any, size: Size | None, rows_first: bool) -> Size | None:
    """Return the largest size behind one step or several in turn, from that before them."""
    for step in [steps] if isinstance(steps, Mapping) else steps:
        size = _after_one(step, size, rows_first)
    return size


def _after_one(step: Mapping[str, Any], size: Size | None, rows_first: bool) -> Size | None:
    kind = str(step.get("type")).rpartition(".")[2]
    inner = step.get("transforms") or ()
    if kind == "RandomChoice":
        return _largest(_after(branch, size, rows_first) for branch in inner)
    if kind == "RandomApply":
        return _largest([size, _after(inner, size, rows_first)])
    if kind in IN_TURN:
        return _after(inner, size, rows_first)
    if kind in RESIZING:
        return _resized(step) or size
    if kind == "RandomCrop":
        return _cropped(step, size, rows_first)
    return _padded(step, size) if kind == "Pad" else size


def _resized(step: Mapping[str, Any]) -> Size | None:
    """Return the largest of one scale, of two that are the ends of a range, or of several."""
    given = step.get("scales", step.get("scale"))
    if given is None:
        return None
    one = isinstance(given, int) or ("scales" not in step and isinstance(given[0], int))
    ratio = max(step.get("ratio_range") or [1])  # a range of scales has none
    found = []
    for scale in [given] if one else given:
        shorter, longer = (scale, scale) if isinstance(scale, int) else sorted(scale)
        found.append((int(ratio * shorter), int(ratio * step.get("max_size", longer))))
    return _largest(found)


def _cropped(step: Mapping[str, Any], size: Size | None, rows_first: bool) -> Size | None:
    kind, crop = step.get("crop_type", "absolute"), step.get("crop_size")
    if crop is None or kind.startswith("relative"):
        return size
    if isinstance(crop, int):
        crop = (crop, crop)
    if kind == "absolute_range":  # of either side, from the first number to the second
        crop = (crop[1], crop[1])
    rows, columns = crop if rows_first else crop[::-1]
    return (min(size[0], rows), min(size[1], columns)) if size else (rows, columns)


def _padded(step: Mapping[str, Any], size: Size | None) -> Size | None:
    if step.get("size"):
        return _largest([size, step["size"][::-1]])
    if size and step.get("pad_to_square"):
        size = (max(size), max(size))
    return size and _rounded_up(size, step.get("size_divisor") or 1)


def _rounded_up(size: Size, divisor: int) -> Size:
    rows, columns = (-(-side // divisor) * divisor for side in size)
    return rows, columns


def _largest(sizes: Iterable[Any]) -> Size | None:
    """Return the largest of each side by itself; None only if all are."""
    known = [size for size in sizes if size]
    return (max(s[0] for s in known), max(s[1] for s in known)) if known else None


def test_scale(config: Config) -> tuple[int, int] | None:
    """Return the (longer, shorter side) that test images are fitted into, if it is one."""
    for step in sections.walk(config.get("test_dataloader") or {}):
        if str(step.get("type")).rpartition(".")[2] in RESIZING:
            scale = step.get("scale")
            pair = isinstance(scale, list | tuple) and len(scale) == 2
            if pair and all(isinstance(side, int) for side in scale):
                return max(scale), min(scale)
    return None
