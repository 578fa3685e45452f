"""All that the checks say of a config's data, as findings: what the doctor asks.

A training stops at the first file that cannot be used; this looks at all of them, opens every
image's header and every label map, and compares the splits.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.datasets import (
    coco_layout,
    coco_panoptic,
    image_files,
    label_map_sets,
    mended,
    panoptic_sets,
)
from swin_dense.datasets.coco_file import open_coco
from swin_dense.datasets.findings import ERROR, Finding, FoundError, kind, of_error
from swin_dense.datasets.image_files import ImageFile
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import location
from swin_dense.openmmlab.settings import fits, places
from swin_dense.openmmlab.settings.sections import datasets_of
from swin_dense.registry import DATASETS
from swin_dense.task import Task

REFUSED = kind(
    "data-refused",
    ERROR,
    "The config and its data can be made into a run.",
    "The training does not start.",
)


def examine(
    config: Config,
    splits: tuple[str, ...] = ("train", "val"),
    data_root: str | None = None,
    classes: str | None = None,
    scale: tuple[int, int] | None = None,
) -> list[Finding]:
    """Check everything, and return what was found, each once.

    Args:
        data_root, classes: see `places.complete_data`.
        scale: what images are fitted into instead of the config's.
    """
    found: list[Finding] = []
    try:
        names = places.find_data(config, splits, data_root, classes)
    except InputError as error:
        return list(of_error(error, REFUSED))
    files: dict[str, list[ImageFile]] = {}
    first = None  # the annotation file that says which classes there are
    for split, dataset in zip(splits, datasets_of(config, splits), strict=True):
        try:
            findings, files[split] = _of_split(config, dataset, names, first)
            found += findings
        except InputError as error:
            found += of_error(error, REFUSED)
        first = first or ("ann_file" in dataset and location(dataset, "ann_file")) or None
    for split, images in files.items():
        found += image_files.examine(images, f"{split} images")
    if len(files) > 1:
        paths = {split: [i.path for i in images] for split, images in files.items()}
        found += image_files.equal_files(paths)
    if not any(f.severity == ERROR for f in found):
        found += _as_a_run(config, splits, data_root, classes, scale)
    return list({(f.kind.code, f.what, f.file): f for f in found}.values())


def _as_a_run(
    config: Config,
    splits: tuple[str, ...],
    data_root: str | None,
    classes: str | None,
    scale: tuple[int, int] | None,
) -> list[Finding]:
    """Make the config complete as a training does, and hold it against the objects."""
    from swin_dense.openmmlab.settings import image_sizes

    try:
        places.complete_data(config, splits, data_root=data_root, classes=classes)
        if scale:
            image_sizes.scale_images(config, scale)
        return fits.examine(config, splits)
    except InputError as error:
        return list(of_error(error, REFUSED))


def _of_split(
    config: Config, dataset: ConfigDict, names: tuple[str, ...] | None, first: Path | None
) -> tuple[list[Finding], list[ImageFile]]:
    task = Task.of(config)
    least = (dataset.get("filter_cfg") or {}).get("min_size", 0)
    if task is Task.SEMANTIC:
        return _label_maps(dataset)
    file, folder = location(dataset, "ann_file"), location(dataset, "img")
    if task is Task.PANOPTIC:
        where = location(dataset, "seg")
        whole, found = panoptic_sets.examine(file, folder, where, names, names is not None, least)
        samples = whole and coco_panoptic.read_samples(file, folder, where, whole.classes)
        sized = [ImageFile(Path(s["img_path"]), (s["height"], s["width"])) for s in samples or ()]
        return found, sized
    lacking: list[Finding] = []
    subset = names is not None
    if first is not None:
        with contextlib.suppress(FoundError):  # told of the first split
            known = names or coco_layout.class_names(first)
            names, lacking = coco_layout.classes_of_split(file, known, first, subset)
    summary, found = coco_layout.examine(
        file, folder, names, task is Task.INSTANCES, subset or bool(lacking), least
    )
    coco = open_coco(file)
    sizes: Iterable[Any] = zip(coco.heights.tolist(), coco.widths.tolist(), strict=True)
    images = [
        ImageFile(folder / name, size)
        for name, size in zip(summary.files, sizes, strict=False)
        if (folder / name).is_file()
    ]
    return [*found, *lacking], images


def mend(config: Config, splits: tuple[str, ...], out: Path) -> list[str]:
    """Write a corrected copy of a config's data, which `examine` completed; see `mended`."""
    if Task.of(config) is not Task.SEMANTIC:
        return mended.write(places.files_of(config, splits), out)
    sets = {}
    for split, dataset in zip(splits, datasets_of(config, splits), strict=True):
        built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
        folders = location(dataset, "img_path"), location(dataset, "seg_map_path")
        sets[split] = (built.pairs(), *folders, built.label_table)
    return mended.write_label_maps(sets, out)


def _label_maps(dataset: ConfigDict) -> tuple[list[Finding], list[ImageFile]]:
    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=True))
    pairs = built.pairs()
    folder = location(dataset, "seg_map_path")
    _, found = label_map_sets.examine(pairs, folder, built.label_table)
    found += label_map_sets.one_class(built.label_table, folder)
    return found, [ImageFile(image) for image, _ in pairs]
