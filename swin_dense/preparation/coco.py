"""Take over a set in COCO format: the official one, or a labelling tool's export."""

from __future__ import annotations

import contextlib
from pathlib import Path

from swin_dense.datasets import coco_json, coco_layout, layouts
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation.gathered import Finder, Gathered, Picture, Thing, images_below

FIELDS = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area")


def read(root: Path, apart: bool) -> Gathered:
    """Find the set's files, which are right as they are; or read them, to be taken apart.

    Args:
        apart: whether some images are to be chosen, or the parts to be made.

    Raises:
        InputError: there is no annotation file, or several that could be meant, or it has faults.
    """
    layout = None
    with contextlib.suppress(InputError):
        layout = layouts.find(root, layouts.INSTANCES)
    if layout and not apart:
        return Gathered(files=_as_they_are(root, layout))
    if layout is None:
        whole = _whole(root)
        layout = {"": whole}
    gathered = Gathered()
    names: dict[str, None] = {}
    for part, split in layout.items():
        _read_part(root, split, part, gathered, names)
    gathered.classes = tuple(names)
    return gathered


def _whole(root: Path) -> layouts.Split:
    try:
        whole = layouts.find_whole(root, layouts.INSTANCES)
    except InputError as error:
        raise InputError(str(error).replace("data root: ", "source: ", 1)) from error
    if whole is None:
        raise MissingInputError(
            f"{root}: no annotation file of COCO format in it or in annotations/. COCO 2017 needs "
            "train2017.zip, val2017.zip and annotations_trainval2017.zip, in one folder."
        )
    return whole


def _as_they_are(root: Path, layout: layouts.Layout) -> list[tuple[Path, str]]:
    """List images and labels of a known layout, panoptic files and label maps too."""
    found: dict[str, Path] = {}
    with contextlib.suppress(InputError):
        for split in layouts.find(root, layouts.PANOPTIC).values():
            found[split.labels] = root / split.labels
            pngs = images_below(root / split.segments)
            found |= {f"{split.segments}/{name}": path for name, path in pngs.items()}
    for part, split in layout.items():
        found[split.labels] = root / split.labels
        maps = layouts.semantic_maps(root, split.images, part)
        for folder in (split.images, maps):
            found |= {f"{folder}/{n}": p for n, p in images_below(root / folder).items()}
    return [(path, name) for name, path in found.items()]


def _read_part(
    root: Path, split: layouts.Split, part: str, gathered: Gathered, names: dict[str, None]
) -> None:
    path, folder = root / split.labels, root / split.images
    coco_layout.check(path, folder)
    content = coco_json.load(path)
    labels: dict = {entry["id"]: entry["name"] for entry in content["categories"]}
    names.update(dict.fromkeys(labels.values()))
    finder = Finder(folder)
    by_id = {}
    for image in content["images"]:
        name = image["file_name"].replace("\\", "/")
        file = finder.by_name.get(name) or folder / name
        by_id[image["id"]] = Picture(file, name, part, image["height"], image["width"])
    for e in content["annotations"]:
        left, top, width, height = e["bbox"]
        thing = Thing(
            labels[e["category_id"]],
            (left, top, width, height),
            e.get("segmentation") or None,
            bool(e.get("iscrowd")),
            e["area"],
            {key: value for key, value in e.items() if key not in FIELDS},
        )
        by_id[e["image_id"]].things.append(thing)
    gathered.pictures += by_id.values()
