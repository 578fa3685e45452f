"""Take over a set of label maps: ADE20K, or images beside label maps of the same name."""

from __future__ import annotations

import contextlib
from pathlib import Path

from swin_dense.datasets import label_maps, layouts
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation.gathered import Gathered, Picture, images_below, measured

ADE20K = {"train": "training", "val": "validation"}
CLASSES_FILE = "classes.txt"


def read_ade20k(root: Path, apart: bool) -> Gathered:
    """Find ADE20K's files, which are right as they are; or its images, to choose among them."""
    layout = layouts.LABEL_MAPS[0]
    for split in layout.values():
        for folder in (split.images, split.labels):
            if not (root / folder).is_dir():
                raise MissingInputError(
                    f"{root}: there is no {folder}/ in it. ADE20K of the scene parsing challenge "
                    "is ADEChallengeData2016.zip, 150 classes; the full set (ADE20K_2021) is "
                    "another one."
                )
    if not apart:
        files = [
            (path, f"{folder}/{name}")
            for split in layout.values()
            for folder in (split.images, split.labels)
            for name, path in images_below(root / folder).items()
        ]
        return Gathered(files=files)
    return Gathered(pictures=_pictures(root, layout), folders=dict(ADE20K))


def read(root: Path, classes: Path | None) -> Gathered:
    """Read images beside label maps in a known layout, or in one folder each.

    Args:
        classes: the file that names the values; None for classes.txt in the root.
    """
    path = classes or root / CLASSES_FILE
    if not path.is_file():
        raise MissingInputError(
            f"{root}: label maps carry no names. Write those of values 0, 1, 2, ..., one per line, "
            f"into {root / CLASSES_FILE} or a file given as `classes`; a name in parentheses is a "
            "value to ignore."
        )
    table = label_maps.read_classes_file(path)
    layout = None
    with contextlib.suppress(InputError):
        layout = layouts.find(root, layouts.LABEL_MAPS)
    if layout is None:
        whole = layouts.find_whole(root, layouts.LABEL_MAPS)
        if whole is None:
            raise MissingInputError(f"{root}: no images/ beside label maps, as in masks/, in it.")
        layout = {"": whole}
    lines = tuple(label_maps.read_names(path))
    return Gathered(table.classes, _pictures(root, layout), table=lines)


def _pictures(root: Path, layout: layouts.Layout) -> list[Picture]:
    found = []
    for part, split in layout.items():
        folder = root / split.images
        for image, labels in label_maps.pair_files(folder, root / split.labels):
            height, width = measured(image)
            name = image.relative_to(folder).as_posix()
            found.append(Picture(image, name, part, height, width, copied=labels))
    return found
