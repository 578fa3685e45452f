"""Data sets in COCO instance format: class names from the file, and whether a set can be used.

Classes are matched by name. The position of a name in a list or file never decides anything.
What may be wrong with single entries is in `coco_problems`.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from swin_dense.datasets.coco_problems import (
    DROPPED,
    corner_hint,
    drop_reason,
    field_problems,
    image_problems,
    link_problems,
    mask_problems,
    mask_size_problems,
    reaches_out,
    repeated,
)
from swin_dense.datasets.paths import require_file, require_folder
from swin_dense.errors import InputError, nearest

LISTS = ("images", "annotations", "categories")


def read_categories(annotation_file: str | Path) -> dict[int, str]:
    """Category id -> name, in the order of the file."""
    return categories_of(load(annotation_file), annotation_file)


def class_names(annotation_file: str | Path) -> tuple[str, ...]:
    """Read the category names in the order of the file."""
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
    twice = repeated(wanted)
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
    """What an annotation file and its image folder hold. All but the first two are counts."""

    annotation_file: str
    files: tuple[str, ...] = ()  # of the images, relative to their folder
    images: int = 0
    kept_images: int = 0  # with an object of the classes to train on
    small_images: int = 0  # left out: the shorter side is below min_side
    annotations: int = 0
    crowds: int = 0  # annotations of groups: no objects to learn
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)  # see DROPPED
    outside_boxes: int = 0  # not dropped, but reach more than a pixel beyond the image
    objects: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    images_with: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    areas: dict[str, int] = dataclasses.field(default_factory=dict)  # small, medium, large
    warnings: list[str] = dataclasses.field(default_factory=list)

    def describe(self, table: bool = True) -> str:
        """Return the counts as text: a line about the file, one per class, one per warning."""
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
    min_side: int = 0,
) -> Summary:
    """Find what would stop or spoil a training run, without opening an image.

    Mistakes that stop or spoil it are raised together in one InputError; what it can live with is
    in `Summary.warnings`.

    Args:
        classes: names to train on; None for all of the file.
        need_masks: whether the model learns from segmentations.
        subset: whether the file may have categories beyond `classes`.
        min_side: images with a shorter side below it are not trained on (mmdet's
            filter_cfg.min_size).
    """
    content = load(annotation_file)
    categories = categories_of(content, annotation_file)
    wanted = tuple(categories.values()) if classes is None else classes
    try:
        ids = match_classes(wanted, categories, subset)
    except InputError as error:
        raise InputError(f"{annotation_file}: {error}") from error
    images, annotations = content["images"], content["annotations"]
    problems = [
        *field_problems("images", images),
        *field_problems("annotations", annotations),
    ]
    if not problems:  # what follows reads these fields
        problems += link_problems(images, annotations, categories)
        problems += image_problems(images, require_folder(image_dir, "image folder"))
    if not problems:
        by_id = {image["id"]: image for image in images}
        numbers = set(ids.values())
        of_classes = [entry for entry in annotations if entry["category_id"] in numbers]
        summary, reasons, trained_on = _count(annotation_file, by_id, annotations, ids, min_side)
        problems += _box_problems(summary, of_classes, by_id)
        if not problems:  # else the boxes are the cause
            problems += _empty_problems(summary, reasons, list(ids), min_side)
        problems += mask_size_problems(of_classes, by_id)
        if need_masks:
            problems += mask_problems(trained_on)
    if problems:
        raise InputError(
            "\n  ".join([f"{annotation_file}: the data set cannot be used:", *problems])
        )
    _warn(summary, min_side, corner_hint(of_classes, by_id))
    return summary


# Reading.


def load(annotation_file: str | Path, panoptic: bool = False) -> dict:
    """Read an annotation file and check that it has the lists of its format.

    Args:
        panoptic: whether annotations are lists of segments instead of single objects.
    """
    path = require_file(annotation_file, "annotation file")
    data = path.read_bytes()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: {_not_json(data, error)}") from error
    form, other = ("panoptic", "instance") if panoptic else ("instance", "panoptic")
    rule = f"COCO {form} format is a JSON object with the lists images, annotations, categories"
    if isinstance(content, list):
        seems = "a bare list"
        if content and isinstance(content[0], dict) and "score" in content[0]:
            seems = "a list of detections, as COCO results files are"
        raise InputError(f"{path}: {rule}; this is {seems}. Name the ground truth file instead.")
    if not isinstance(content, dict):
        raise InputError(f"{path}: {rule}; this is a bare {type(content).__name__}.")
    absent = [key for key in LISTS if not isinstance(content.get(key), list)]
    if not absent:
        first = content["annotations"][:1]
        if any(isinstance(e, dict) and ("segments_info" in e) != panoptic for e in first):
            how = "without" if panoptic else "with"
            raise InputError(
                f"{path}: {rule}; this is COCO {other} format (annotations {how} segments_info). "
                f"Name the file of {'segments' if panoptic else 'instances'} instead, or use a "
                f"config for {'instances' if panoptic else 'panoptic segmentation'}."
            )
        return content
    remedy = f"Export the set in COCO {form} format."
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


def categories_of(content: dict, path: str | Path) -> dict[int, str]:
    """Category id -> name of a loaded file; its categories are entries with ids and names."""
    entries = content["categories"]
    if not entries:
        raise InputError(f"{path}: the list of categories is empty. Export it with its classes.")
    for entry in entries:
        if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys():
            raise InputError(f"{path}: every category needs id and name, got {entry}. Add them.")
        if not isinstance(entry["id"], int) or not isinstance(entry["name"], str):
            raise InputError(f"{path}: a category has a number as id, a text as name, got {entry}.")
    for key in ("id", "name"):
        twice = repeated(entry[key] for entry in entries)
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


# Counting what is trained on.

REASONS = (
    "{} have no annotation",
    "{} have no box of the classes",
    "{} have only crowds of the classes",
    "{} have only boxes that are left out",
)
SMALL = -1  # beside the positions in REASONS


def _count(
    annotation_file: str | Path,
    images: Mapping,
    annotations: list,
    ids: Mapping[str, int],
    min_side: int,
) -> tuple[Summary, collections.Counter, list[dict]]:
    """Go through the annotations once.

    Returns:
        the counts, the images that are not kept by reason, and the annotations, crowds among
        them, that reach the model.
    """
    files = tuple(image["file_name"] for image in images.values())
    summary = Summary(str(annotation_file), files, len(images), annotations=len(annotations))
    names = {number: name for name, number in ids.items()}
    small = {i for i, image in images.items() if min(image["width"], image["height"]) < min_side}
    objects: collections.Counter = collections.Counter()
    areas: collections.Counter = collections.Counter()
    dropped: collections.Counter = collections.Counter()
    seen = collections.defaultdict(set)  # per class, the images that show it
    best = dict.fromkeys(images, 0)  # how far the best annotation of an image came: see REASONS
    trained_on = []
    for entry in annotations:
        number, category = entry["image_id"], entry["category_id"]
        step = 1
        if category in names:
            reason = drop_reason(entry, images[number])
            crowd = bool(entry.get("iscrowd"))
            step = 3 if reason else 2 if crowd else 4
            if reason:
                dropped[reason] += 1
            elif number not in small:
                trained_on.append(entry)
                summary.crowds += crowd
                summary.outside_boxes += reaches_out(entry["bbox"], images[number])
        if step == 4 and number not in small:
            objects[category] += 1
            seen[category].add(number)
            area = entry["area"]
            areas["small" if area < 32**2 else "medium" if area < 96**2 else "large"] += 1
        best[number] = max(best[number], step)
    best |= dict.fromkeys(small, SMALL)
    summary.dropped = {reason: dropped[reason] for reason in DROPPED}
    summary.objects = {name: objects[number] for number, name in names.items()}
    summary.images_with = {name: len(seen[number]) for number, name in names.items()}
    summary.areas = {name: areas[name] for name in ("small", "medium", "large")}
    summary.kept_images = sum(step == 4 for step in best.values())
    summary.small_images = len(small)
    return summary, collections.Counter(best.values()), trained_on


def _left_out(summary: Summary) -> str:
    counts = [f"{count} {DROPPED[reason]}" for reason, count in summary.dropped.items() if count]
    return (
        f"{sum(summary.dropped.values())} of {summary.annotations} annotations are left out of "
        f"training: {', '.join(counts)}"
    )


def _box_problems(summary: Summary, annotations: list, images: Mapping) -> list[str]:
    """Boxes that are mostly dropped; those marked ignore are so on purpose."""
    boxes = [entry["bbox"] for entry in annotations]
    if any(w > 0 < h for _, _, w, h in boxes) and all(0 <= v <= 1 for box in boxes for v in box):
        return [
            f"every box lies within 0..1, the first is {boxes[0]} of annotation "
            f"{annotations[0]['id']}: these are normalised coordinates. COCO boxes are left, top, "
            "width, height in pixels: multiply the first and third number by the width of the "
            "image, the second and fourth by its height, and the area by both."
        ]
    marked = summary.dropped["ignore"]
    dropped = sum(summary.dropped.values()) - marked
    if dropped <= (len(annotations) - marked) / 2:
        return []
    return [
        f"{_left_out(summary)}. What is trained on is at least one pixel wide and high, meets its "
        "image and has an area above 0. Correct bbox (left, top, width, height in pixels) and area,"
        f" or width and height of the images.{corner_hint(annotations, images)}"
    ]


def _empty_problems(
    summary: Summary, reasons: collections.Counter, classes: list[str], min_side: int
) -> list[str]:
    if summary.kept_images:
        return []
    texts = dict(enumerate(REASONS)) | {SMALL: f"{{}} have a side below {min_side} pixels"}
    counts = "; ".join(text.format(reasons[i]) for i, text in texts.items() if reasons[i])
    remedy = "correct the classes or the annotations"
    if reasons[SMALL]:
        remedy += ", or lower min_size in filter_cfg"
    return [
        f"0 of {summary.images} images kept: {counts}. Classes: {classes}. Training needs "
        f"images with objects: {remedy}."
    ]


def _warn(summary: Summary, min_side: int, box_hint: str) -> None:
    never = [name for name, count in summary.objects.items() if not count]
    small = summary.small_images
    left_out = summary.images - summary.kept_images - small
    outside = f"{summary.outside_boxes} boxes reach outside their image"
    for count, text in (
        (left_out, f"{left_out} of {summary.images} images have no object to train on"),
        (small, f"{small} of {summary.images} images are left out: a side below {min_side} pixels"),
        (sum(summary.dropped.values()), _left_out(summary)),
        (summary.outside_boxes, f"{outside}.{box_hint}" if box_hint else outside),
        (len(never), f"classes without any object: {', '.join(never)}"),
    ):
        if count:
            summary.warnings.append(text)
