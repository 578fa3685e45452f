"""Read Pascal VOC: an XML file for each image (boxes), or label maps of SegmentationClass.

hotcoco reads the XML files: pixels count from 1 there, both corners inside the box; an object
that is marked difficult is a crowd, neither learnt nor a mistake to find.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from swin_dense.datasets.images import SUFFIXES
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation.gathered import Finder, Gathered, Picture, Thing, measured

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = ("train", "val")


def read(root: Path) -> Gathered:
    """Read the boxes of all years of VOC in the folder, or of a set in its format."""
    gathered = Gathered()
    names: dict[str, None] = {}
    places = _places(root)
    for place in places:
        folder = place / "Annotations" if (place / "Annotations").is_dir() else place
        parts = _lists(place, "Main")
        finder = Finder(place)
        for path, part in _files(folder, parts, gathered):
            picture, labels = _picture(path, finder, part)
            picture.name = picture.name.removeprefix("JPEGImages/")
            if len(places) > 1:
                picture.name = f"{place.name}/{picture.name}"
            gathered.pictures.append(picture)
            names.update(dict.fromkeys(labels))
    if not gathered.pictures:
        raise MissingInputError(f"{root}: no XML file of an image. Name the folder of VOC2012.")
    official = all(name in CLASSES for name in names)
    gathered.classes = tuple(n for n in CLASSES if n in names) if official else tuple(sorted(names))
    return gathered


def read_label_maps(root: Path) -> Gathered:
    """Read the images with a label map in SegmentationClass: 0 is background, 255 is no class."""
    gathered = Gathered(table=("background", *CLASSES), classes=("background", *CLASSES))
    for place in _places(root):
        folder = place / "SegmentationClass"
        parts = _lists(place, "Segmentation")
        finder = Finder(place / "JPEGImages" if (place / "JPEGImages").is_dir() else place)
        for path in sorted(folder.glob("*.png")):
            if parts and path.stem not in parts:
                gathered.left_out["label maps in neither train.txt nor val.txt"] += 1
                continue
            name = finder.find(path.stem)
            if name is None:
                raise InputError(f"{path}: there is no image of that name in {finder.root}.")
            height, width = measured(finder.by_name[name])
            picture = Picture(finder.by_name[name], name, parts.get(path.stem, ""), height, width)
            picture.copied = path
            gathered.pictures.append(picture)
    if not gathered.pictures:
        raise MissingInputError(
            f"{root}: no label map in SegmentationClass/. Name the folder that has it, or ask for "
            "instances."
        )
    return gathered


def _places(root: Path) -> list[Path]:
    """Return the folders of the years, or the root alone."""
    top = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    years = sorted(p for p in top.glob("VOC[0-9]*") if p.is_dir())
    return years or [top]


def _lists(place: Path, kind: str) -> dict[str, str]:
    """Return which part each stem is in; empty where there are no lists."""
    found: dict[str, str] = {}
    for part in LISTS:
        path = place / "ImageSets" / kind / f"{part}.txt"
        if path.is_file():
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                if line.strip():
                    found[line.split()[0]] = part
    return found if set(found.values()) == set(LISTS) else {}


def _files(folder: Path, parts: dict[str, str], gathered: Gathered) -> list[tuple[Path, str]]:
    found = []
    for path in sorted(folder.rglob("*.xml")):
        if any(p.startswith(".") for p in path.relative_to(folder).parts):
            continue
        if parts and path.stem not in parts:
            gathered.left_out["images in neither train.txt nor val.txt"] += 1
            continue
        found.append((path, parts.get(path.stem, "")))
    return found


def _picture(path: Path, finder: Finder, part: str) -> tuple[Picture, list[str]]:
    """Read one XML file."""
    from hotcoco import COCO

    # It reads a folder; alone in one, a file that is wrong is named.
    with tempfile.TemporaryDirectory() as alone:
        shutil.copyfile(path, Path(alone, "one.xml"))
        try:
            content = COCO.from_voc(alone).dataset
        except (ValueError, OSError) as error:
            raise InputError(f"{path}: not in the format of Pascal VOC ({error}).") from error
    entry = content["images"][0]
    name = finder.find(entry["file_name"], path) or finder.find(path.stem + SUFFIXES[0], path)
    if name is None:
        raise InputError(
            f"{path}: its image {entry['file_name']!r} is not in {finder.root}. Put it there."
        )
    height, width = measured(finder.by_name[name])
    stated = (entry["height"], entry["width"])
    if 0 not in stated and stated != (height, width):
        raise InputError(
            f"{path}: it says {stated[1]}x{stated[0]} pixels, {finder.by_name[name]} has "
            f"{width}x{height} (width x height, upright). Boxes would lie elsewhere: correct "
            "either, or remove an orientation tag (EXIF) that it was labelled without."
        )
    labels = {c["id"]: c["name"] for c in content["categories"]}
    picture = Picture(finder.by_name[name], name, part, height, width)
    for e in content["annotations"]:
        box = tuple(float(v) for v in e["bbox"])
        picture.things.append(
            Thing(labels[e["category_id"]], box, crowd=bool(e["iscrowd"]))  # type: ignore[arg-type]
        )
    return picture, [t.label for t in picture.things]
