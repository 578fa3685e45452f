"""Data sets in COCO instance format: class names from the file, and what is wrong with a set.

Classes are matched by name. The position of a name in a list or file never decides anything.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
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
    content = _load(annotation_file)
    categories = _categories(content, annotation_file)
    wanted = tuple(categories.values()) if classes is None else classes
    try:
        ids = match_classes(wanted, categories, subset)
    except InputError as error:
        raise InputError(f"{annotation_file}: {error}") from error
    images, annotations = content["images"], content["annotations"]
    problems = [
        *_field_problems("images", images),
        *_field_problems("annotations", annotations),
    ]
    if not problems:  # what follows reads these fields
        problems += _link_problems(images, annotations, categories)
        problems += _absent_images(images, require_folder(image_dir, "image folder"))
    if not problems:
        by_id = {image["id"]: image for image in images}
        numbers = set(ids.values())
        of_classes = [entry for entry in annotations if entry["category_id"] in numbers]
        summary, reasons, trained_on = _count(annotation_file, by_id, annotations, ids, min_side)
        problems += _box_problems(summary, of_classes, by_id)
        if not problems:  # else the boxes are the cause
            problems += _empty_problems(summary, reasons, list(ids), min_side)
        problems += _mask_size_problems(of_classes, by_id)
        if need_masks:
            problems += _mask_problems(trained_on)
    if problems:
        raise InputError(
            "\n  ".join([f"{annotation_file}: the data set cannot be used:", *problems])
        )
    _warn(summary, min_side, _box_hint(of_classes, by_id))
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
        first = content["annotations"][:1]
        if any(isinstance(entry, dict) and "segments_info" in entry for entry in first):
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


# Fields: what each must be.


def _is_number(value: object) -> bool:
    # type, not isinstance: True is no number. The bound leaves out nan, inf and what overflows.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def _is_side(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_id(value: object) -> bool:
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_flag(value: object) -> bool:
    return type(value) in (bool, int, float) and value in (0, 1)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


FIELDS: dict[str, dict[str, tuple[Callable[[object], bool], str]]] = {
    "images": {
        "id": (_is_id, "a whole number or a text"),
        "file_name": (_is_file_name, "a text"),
        "width": (_is_side, "a number above 0"),
        "height": (_is_side, "a number above 0"),
    },
    "annotations": {
        "id": (_is_id, "a whole number or a text"),
        "image_id": (_is_id, "a whole number or a text"),
        "category_id": (_is_id, "a whole number or a text"),
        "bbox": (_is_box, "four finite numbers (left, top, width, height)"),
        "area": (_is_number, "a finite number"),
        "iscrowd": (_is_flag, "0 or 1"),
        "ignore": (_is_flag, "0 or 1"),
    },
}
OPTIONAL = ("iscrowd", "ignore")  # without them it is 0


# Mistakes. Each function returns one line per kind of mistake.


def _field_problems(what: str, entries: list) -> list[str]:
    fields = FIELDS[what]
    odd = [entry for entry in entries if not isinstance(entry, dict)]
    if odd:
        return [
            f"{len(odd)} of {len(entries)} {what} are not JSON objects, the first is "
            f"{_short(odd[0])}. Each needs {', '.join(f for f in fields if f not in OPTIONAL)}: "
            "correct or remove them."
        ]
    problems = []
    for field, (is_right, rule) in fields.items():
        otherwise = 0 if field in OPTIONAL else None
        wrong = [entry for entry in entries if not is_right(entry.get(field, otherwise))]
        absent = [e for e in wrong if e.get(field) is None and field not in OPTIONAL]
        if absent:
            problems.append(
                f"{len(absent)} of {len(entries)} {what} lack {field!r}, the first is "
                f"{_short(absent[0], 120)}. Add the field."
            )
        elif wrong:
            where = "" if field == "id" else f" of the entry with id {_short(wrong[0].get('id'))}"
            problems.append(
                f"{len(wrong)} of {len(entries)} {what} have a {field!r} that is not {rule}, the "
                f"first is {_short(wrong[0][field])}{where}. Correct or remove them."
            )
    return problems


def _short(value: object, length: int = 80) -> str:
    return text if len(text := repr(value)) <= length else text[:length] + "..."


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


# Counting, by mmdet's rule of what is trained on.

DROPPED = {
    "thin": "less than one pixel wide or high",
    "outside": "wholly outside their image",
    "area": "with an area of zero or less",
    "ignore": "marked ignore",
}
REASONS = (
    "{} have no annotation",
    "{} have no box of the classes",
    "{} have only crowds of the classes",
    "{} have only boxes that are left out",
)
SMALL = -1  # beside the positions in REASONS


def _drop_reason(entry: dict, image: dict) -> str | None:
    """Why mmdet's CocoDataset skips an annotation without a word: a key of DROPPED, or None."""
    if entry.get("ignore"):
        return "ignore"
    left, top, width, height = entry["bbox"]
    if width < 1 or height < 1:
        return "thin"
    if left + width <= 0 or top + height <= 0 or left >= image["width"] or top >= image["height"]:
        return "outside"
    return "area" if entry["area"] <= 0 else None


def _reaches_out(box: list, image: dict) -> bool:
    left, top, width, height = box
    across, down = image["width"] + 1, image["height"] + 1
    return left < -1 or top < -1 or left + width > across or top + height > down


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
    summary = Summary(str(annotation_file), len(images), annotations=len(annotations))
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
            reason = _drop_reason(entry, images[number])
            crowd = bool(entry.get("iscrowd"))
            step = 3 if reason else 2 if crowd else 4
            if reason:
                dropped[reason] += 1
            elif number not in small:
                trained_on.append(entry)
                summary.crowds += crowd
                summary.outside_boxes += _reaches_out(entry["bbox"], images[number])
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
        f" or width and height of the images.{_box_hint(annotations, images)}"
    ]


def _box_hint(annotations: list, images: Mapping) -> str:
    """A sentence when boxes seem to be left, top, right, bottom: only so they fit the images."""
    beyond = fitting = 0
    for entry in annotations:
        image, (left, top, right, bottom) = images[entry["image_id"]], entry["bbox"]
        beyond += _reaches_out(entry["bbox"], image)
        fitting += left < right <= image["width"] + 1 and top < bottom <= image["height"] + 1
    if beyond <= len(annotations) / 4 or fitting < 0.95 * len(annotations):
        return ""
    return (
        f" {beyond} of {len(annotations)} boxes reach outside their image as left, top, width, "
        f"height, but {fitting} fit as left, top, right, bottom: if they are that, subtract left "
        "from the third number and top from the fourth."
    )


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


# Masks.


def _rle_size(mask: object) -> tuple | None:
    """(height, width) as a run-length mask states them; None for what is none."""
    size = mask.get("size") if isinstance(mask, dict) else None
    is_size = isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))
    return tuple(size) if is_size else None  # type: ignore[arg-type]


def _mask_size_problems(annotations: list, images: Mapping) -> list[str]:
    wrong, swapped = [], 0
    for entry in annotations:
        size = _rle_size(entry.get("segmentation"))
        image = images[entry["image_id"]]
        if size and size != (image["height"], image["width"]):
            wrong.append((entry["id"], size, image))
            swapped += size == (image["width"], image["height"])
    if not wrong:
        return []
    number, (height, width), image = wrong[0]
    remedy = "Correct the entries of the images, or make these masks anew."
    if swapped:
        remedy = (
            f"In {swapped} of them width and height are swapped: size is (height, width). Swap "
            "them in the masks or in the entries of the images, whichever is wrong."
        )
    return [
        f"{len(wrong)} run-length masks have another size than their image. The first is that of "
        f"annotation {number}, {height} high and {width} wide; {image['file_name']} (id "
        f"{image['id']}) is {image['height']} high and {image['width']} wide. {remedy}"
    ]


def _mask_problems(annotations: list) -> list[str]:
    """Annotations that mmdet's loader of masks stumbles over, or passes by."""
    wrong = [entry for entry in annotations if not _is_mask(entry.get("segmentation"))]
    if not wrong:
        return []
    first = wrong[0].get("segmentation")
    return [
        f"{len(wrong)} of {len(annotations)} annotations to train on have no usable segmentation, "
        f"and this model learns masks: ids {first_names([str(entry['id']) for entry in wrong])}; "
        f"the first has {'none' if first is None else _short(first)}. A mask is a list of "
        "polygons [x, y, x, y, x, y, ...] of three points or more, or run lengths with counts and "
        "size. Remove these annotations, add their masks, or train a detector without mask head."
    ]


def _is_mask(mask: object) -> bool:
    if isinstance(mask, list):  # mmdet passes by single polygons that are too short or odd
        lengths = [len(part) if _is_numbers(part) else None for part in mask]
        return None not in lengths and any(n and n >= 6 and n % 2 == 0 for n in lengths)
    if not isinstance(mask, dict) or not (counts := mask.get("counts")):
        return False
    return _rle_size(mask) is not None and (isinstance(counts, str) or _is_numbers(counts))


def _is_numbers(values: object) -> bool:
    try:
        return isinstance(values, list) and math.isfinite(math.fsum(values))
    except (TypeError, ValueError, OverflowError):  # of a text or list, of inf, of huge numbers
        return False


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
