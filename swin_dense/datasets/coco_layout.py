"""Data sets in COCO instance format: class names from the file, and what is wrong with a set.

Classes are matched by name. The position of a name in a list or file never decides anything.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from swin_dense.datasets.paths import first_names, require_file, require_folder
from swin_dense.errors import InputError, nearest

LISTS = ("images", "annotations", "categories")


def read_categories(annotation_file: str | Path) -> dict[int, str]:
    """Category id -> name, in the order of the file."""
    return _categories(_load(annotation_file), annotation_file)


def class_names(annotation_file: str | Path) -> tuple[str, ...]:
    """The category names in the order of the file."""
    return tuple(read_categories(annotation_file).values())


def match_classes(
    wanted: Iterable[str], found: Mapping[int, str], subset: bool = False
) -> dict[str, int]:
    """Class name -> category id, in the order of `wanted`; names are equal or it is an error.

    Args:
        wanted: the classes a config or model states.
        found: id -> name, as `read_categories` gives it.
        subset: whether the file may have categories that are not wanted.
    """
    if isinstance(wanted, str):
        raise InputError(
            f"classes: a tuple of names is needed, got the text {wanted!r}. A tuple of one name "
            f"has a comma: ({wanted!r},)."
        )
    wanted = tuple(wanted)
    twice = [name for name, count in collections.Counter(wanted).items() if count > 1]
    if twice:
        raise InputError(f"classes: {twice} stated more than once. State each name once.")
    ids = {name: number for number, name in found.items()}
    absent = [name for name in wanted if name not in ids]
    unasked = [name for name in ids if name not in wanted]
    if not absent and (subset or not unasked):
        return {name: ids[name] for name in wanted}

    problems = [f"Class {name!r} is not in the file.{_nearest(name, ids)}" for name in absent]
    if unasked and not subset:
        problems.append(f"Categories {unasked} of the file are not among the classes.")
    remedy = "Correct the names, or leave `classes` out to take all of the file."
    if not absent:
        remedy = "Add them, or say subset=True to use only the classes stated."
    raise InputError(
        f"classes and categories are matched by name. {' '.join(problems)} "
        f"Classes: {list(wanted)}. Categories in the file: {list(ids)}. {remedy}"
    )


@dataclasses.dataclass
class Summary:
    """What an annotation file and its image folder hold. All fields but the first are counts."""

    annotation_file: str
    images: int = 0
    kept_images: int = 0  # with a box of the classes to train on
    annotations: int = 0
    crowds: int = 0  # annotations of groups, left out of training
    no_size_boxes: int = 0  # width or height of zero or less
    outside_boxes: int = 0  # reach more than a pixel beyond the image
    no_masks: int = 0  # annotations without segmentation
    objects: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    images_with: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    areas: dict[str, int] = dataclasses.field(default_factory=dict)  # small, medium, large
    warnings: list[str] = dataclasses.field(default_factory=list)

    def describe(self, table: bool = True) -> str:
        """The counts as text: a line about the file, one per class, one per warning."""
        areas = ", ".join(f"{count} {name}" for name, count in self.areas.items())
        width = max([5, *map(len, self.objects)])
        rows = [
            f"{name:{width}} {count:>9} {self.images_with[name]:>9}"
            for name, count in self.objects.items()
        ]
        return "\n".join(
            [
                f"{self.annotation_file}: {self.images} images, {self.kept_images} of them with "
                f"objects; {self.annotations} annotations ({areas}; {self.crowds} crowds)",
                *([f"{'class':{width}} {'objects':>9} {'images':>9}", *rows] if table else []),
                *(f"warning: {text}" for text in self.warnings),
            ]
        )


def check(
    annotation_file: str | Path,
    image_dir: str | Path,
    classes: Iterable[str] | None = None,
    need_masks: bool = False,
    subset: bool = False,
) -> Summary:
    """Find what would stop or spoil a training run, without opening an image.

    Mistakes that stop or spoil it are raised together in one InputError; what it can live with is
    in `Summary.warnings`.

    Args:
        classes: names to train on; None for all of the file.
        need_masks: whether the model learns from segmentations.
        subset: whether the file may have categories beyond `classes`.
    """
    content = _load(annotation_file)
    categories = _categories(content, annotation_file)
    wanted = tuple(categories.values()) if classes is None else classes
    try:
        ids = match_classes(wanted, categories, subset)
    except InputError as error:
        raise InputError(f"{annotation_file}: {error}") from error
    images, annotations = content["images"], content["annotations"]
    problems = [
        *_field_problems(images, ("id", "file_name", "width", "height"), "images"),
        *_field_problems(
            annotations, ("id", "image_id", "category_id", "bbox", "area"), "annotations"
        ),
    ]
    if not problems:  # what follows reads these fields
        problems += _link_problems(images, annotations, categories)
        problems += _absent_images(images, require_folder(image_dir, "image folder"))
    if not problems:
        summary, reasons = _count(str(annotation_file), images, annotations, ids)
        problems += _empty_problems(summary, reasons, list(ids), need_masks)
    if problems:
        raise InputError(
            "\n  ".join([f"{annotation_file}: the data set cannot be used:", *problems])
        )
    _warn(summary, reasons)
    return summary


# Reading.


def _load(annotation_file: str | Path) -> dict:
    path = require_file(annotation_file, "annotation file")
    data = path.read_bytes()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: {_not_json(data, error)}") from error
    rule = "COCO instance format is a JSON object with the lists images, annotations, categories"
    if isinstance(content, list):
        seems = "a bare list"
        if content and isinstance(content[0], dict) and "score" in content[0]:
            seems = "a list of detections, as COCO results files are"
        raise InputError(f"{path}: {rule}; this is {seems}. Name the ground truth file instead.")
    if not isinstance(content, dict):
        raise InputError(f"{path}: {rule}; this is a bare {type(content).__name__}.")
    absent = [key for key in LISTS if not isinstance(content.get(key), list)]
    if not absent:
        if any("segments_info" in entry for entry in content["annotations"][:1]):
            raise InputError(
                f"{path}: {rule}; this is COCO panoptic format (annotations with segments_info). "
                "Name the file of instances instead."
            )
        return content
    remedy = "Export the set in COCO instance format."
    if {"shapes", "imagePath"} & content.keys():
        remedy = "This is a LabelMe file, of one image: convert the folder of them to COCO format."
    elif any(str(key).startswith("_via") for key in content):
        remedy = "This is a VGG Image Annotator project: export it in COCO format."
    elif "annotations" in absent and {"images", "categories"} <= content.keys():
        remedy = "Files of a test set have no annotations: name that of the validation set."
    raise InputError(f"{path}: {rule}; {absent} absent, found {sorted(content)[:8]}. {remedy}")


def _not_json(data: bytes, error: ValueError) -> str:
    start = data[:200].strip()
    if not start:
        return "the annotation file is empty. Export or copy it again."
    if start.startswith(b"<"):
        return "this is XML, as Pascal VOC has it, not JSON. Convert the set to COCO format."
    first_line = start.splitlines()[0].split()
    if len(first_line) >= 5 and all(word.replace(b".", b"").isdigit() for word in first_line):
        return "this is a text file of numbers, as YOLO has it. Convert the set to COCO format."
    return (
        f"the file is not JSON, or cut off ({error}; {len(data)} bytes). Export or copy it again."
    )


def _categories(content: dict, path: str | Path) -> dict[int, str]:
    entries = content["categories"]
    if not entries:
        raise InputError(f"{path}: the list of categories is empty. Export it with its classes.")
    for entry in entries:
        if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys():
            raise InputError(f"{path}: every category needs id and name, got {entry}. Add them.")
        if not isinstance(entry["id"], int) or not isinstance(entry["name"], str):
            raise InputError(f"{path}: a category has a number as id, a text as name, got {entry}.")
    for key in ("id", "name"):
        twice = _twice(entry[key] for entry in entries)
        if twice:
            shared = [entry for entry in entries if entry[key] == twice[0]]
            raise InputError(
                f"{path}: no two categories may have the same {key}, got {shared}. Merge them or "
                "rename one."
            )
    return {entry["id"]: entry["name"] for entry in entries}


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    folded = {other.strip().casefold(): other for other in known}
    same = folded.get(name.strip().casefold())
    return f" Did you mean {same!r}?" if same else nearest(name, known)


def _twice(values: Iterable) -> list:
    return [value for value, count in collections.Counter(values).items() if count > 1]


# Mistakes. Each function returns one line per kind of mistake.


def _field_problems(entries: list, fields: tuple[str, ...], what: str) -> list[str]:
    problems = []
    for field in fields:
        without = [entry for entry in entries if not _has(entry, field)]
        if without:
            problems.append(
                f"{len(without)} of {len(entries)} {what} lack {field!r}, the first is "
                f"{str(without[0])[:120]}. Add the field."
            )
    odd = (
        [e for e in entries if "bbox" in fields and not _is_box(e.get("bbox"))]
        if not problems
        else []
    )
    if odd:
        problems.append(
            f"{len(odd)} boxes are not four numbers (left, top, width, height), the first is "
            f"{str(odd[0]['bbox'])[:80]} of annotation {odd[0]['id']}. Correct or remove them."
        )
    return problems


def _has(entry: object, field: str) -> bool:
    return isinstance(entry, dict) and entry.get(field) is not None


def _is_box(box: object) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)


def _link_problems(images: list, annotations: list, categories: Mapping[int, str]) -> list[str]:
    problems = []
    for what, entries in (("images", images), ("annotations", annotations)):
        twice = _twice(entry["id"] for entry in entries)
        if twice:
            problems.append(
                f"{len(twice)} ids are shared by several {what}, the first are {twice[:3]}. Number "
                f"the {what} anew: of those with one id only the last would be seen."
            )
    for field, known in (
        ("image_id", {image["id"] for image in images}),
        ("category_id", set(categories)),
    ):
        unknown = [entry[field] for entry in annotations if entry[field] not in known]
        if unknown:
            some = sorted(set(unknown), key=str)[:3]
            what = "images" if field == "image_id" else "categories"
            problems.append(
                f"{len(unknown)} of {len(annotations)} annotations have a {field} that no entry of "
                f"{what} has as id: {some}, where ids are like {sorted(known, key=str)[:3]} (a "
                "number and a text differ). Correct them or remove the annotations."
            )
    return problems


def _absent_images(images: list, image_dir: Path) -> list[str]:
    if not images:
        return ["the list of images is empty. Name the file of another split, or export it again."]
    by_folder = collections.defaultdict(list)
    for image in images:
        folder, name = os.path.split(image["file_name"])
        by_folder[folder].append(name)
    absent: list[str] = []
    hints: list[str] = []
    for folder, names in by_folder.items():
        place = image_dir / folder
        there = {entry.name for entry in os.scandir(place)} if place.is_dir() else set()
        gone = [name for name in names if name not in there]
        absent += [os.path.join(folder, name) for name in gone]
        if gone and not hints:
            hints = _absent_hints(gone, there, place, image_dir)
    if not absent:
        return []
    return [
        f"{len(absent)} of {len(images)} images are not in {image_dir}: {first_names(absent)}. "
        + " ".join(hints or ["Name the folder that file_name starts from, or copy the images."])
    ]


def _absent_hints(gone: list[str], there: set[str], place: Path, image_dir: Path) -> list[str]:
    """What the folder has instead: another suffix, another case, another folder."""
    if not place.is_dir():
        flat = sum((image_dir / name).is_file() for name in gone[:50])
        hint = f"There is no folder {place}"
        return [
            hint + (f", but {image_dir} has {gone[0]}." if flat else ".") + " Correct file_name."
        ]
    stems = {os.path.splitext(name)[0]: name for name in there}
    folded = {name.casefold(): name for name in there}
    for name in gone[:50]:
        if name.casefold() in folded:
            return [f"The folder has {folded[name.casefold()]}: correct upper and lower case."]
        stem, suffix = os.path.splitext(name)
        if stem in stems and suffix != os.path.splitext(stems[stem])[1]:
            return [f"The folder has {stems[stem]}: correct the suffix in file_name."]
    inside = [entry.name for entry in os.scandir(place) if entry.is_dir()]
    for folder in inside:
        if (place / folder / gone[0]).is_file():
            return [f"The folder {place / folder} has {gone[0]}: name that folder."]
    for relative in (
        Path(".."),
        *(Path("..") / n.name for n in place.parent.iterdir() if n.is_dir()),
    ):
        beside = place / relative / gone[0]
        if beside.is_file():
            return [f"The folder {beside.parent.resolve()} has {gone[0]}: name that folder."]
    return []


def _count(
    name: str, images: list, annotations: list, ids: Mapping[str, int]
) -> tuple[Summary, collections.Counter]:
    """Go through the annotations once; also count the images that are not kept, by reason."""
    summary = Summary(name, len(images), annotations=len(annotations))
    names = {number: name for name, number in ids.items()}
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    objects: collections.Counter = collections.Counter()
    areas: collections.Counter = collections.Counter()
    seen = collections.defaultdict(set)  # per class, the images that show it
    best: dict[int, int] = {}  # per image, how far its best annotation came: see REASONS
    for entry in annotations:
        image, (left, top, width, height) = entry["image_id"], entry["bbox"]
        step = 1
        if entry["category_id"] in names:
            crowd, flat = bool(entry.get("iscrowd")), width <= 0 or height <= 0
            step = 2 if crowd else 3 if flat else 4
            summary.crowds += crowd
            summary.no_size_boxes += flat
            summary.no_masks += not entry.get("segmentation")
            across, down = sizes[image]
            summary.outside_boxes += (
                left < -1 or top < -1 or left + width > across + 1 or top + height > down + 1
            )
        if step == 4:
            objects[entry["category_id"]] += 1
            seen[entry["category_id"]].add(image)
            area = entry["area"]
            areas["small" if area < 32**2 else "medium" if area < 96**2 else "large"] += 1
        best[image] = max(best.get(image, 0), step)
    summary.objects = {name: objects[number] for number, name in names.items()}
    summary.images_with = {name: len(seen[number]) for number, name in names.items()}
    summary.areas = {name: areas[name] for name in ("small", "medium", "large")}
    summary.kept_images = sum(step == 4 for step in best.values())
    return summary, collections.Counter(best.get(image["id"], 0) for image in images)


REASONS = (
    "{} have no annotation",
    "{} have no box of the classes",
    "{} have only crowds of the classes",
    "{} have only boxes of zero width or height",
)


def _empty_problems(
    summary: Summary, reasons: collections.Counter, classes: list[str], need_masks: bool
) -> list[str]:
    if not summary.kept_images:
        counts = "; ".join(text.format(reasons[i]) for i, text in enumerate(REASONS) if reasons[i])
        return [
            f"0 of {summary.images} images kept: {counts}. Classes: {classes}. Training needs "
            "images with objects: correct the classes or the annotations."
        ]
    if need_masks and summary.no_masks == sum(summary.objects.values()) + summary.crowds:
        return [
            f"all {summary.no_masks} annotations lack a segmentation, and this model learns masks. "
            "Export the set with masks, or train a model for boxes only."
        ]
    return []


def _warn(summary: Summary, reasons: collections.Counter) -> None:
    never = [name for name, count in summary.objects.items() if not count]
    left_out = summary.images - summary.kept_images
    for count, text in (
        (left_out, f"{left_out} of {summary.images} images have no object to train on"),
        (summary.no_size_boxes, f"{summary.no_size_boxes} boxes have no width or no height"),
        (summary.outside_boxes, f"{summary.outside_boxes} boxes reach outside their image"),
        (summary.no_masks, f"{summary.no_masks} annotations have no segmentation"),
        (len(never), f"classes without any object: {', '.join(never)}"),
    ):
        if count:
            summary.warnings.append(text)
