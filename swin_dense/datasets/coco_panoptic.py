"""Data sets in COCO panoptic format: each pixel belongs to one segment, or to none (void).

A JSON file lists the segments of each image; a PNG shows where they lie: the number of a pixel is
R + 256 G + 256^2 B, 0 is void. Segments of things are objects told apart; the stuff of one class
in an image is one region. Labels count the things first, then the stuff, as the heads expect.

Letters: h w an image.
"""

from __future__ import annotations

import collections
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from swin_dense.datasets.coco_fields import field_problems
from swin_dense.datasets.coco_json import categories_of, load, repeated
from swin_dense.datasets.coco_layout import match_classes
from swin_dense.datasets.image_names import image_problems
from swin_dense.datasets.images import DECODING_FAILED, image_size
from swin_dense.datasets.label_maps import MOST_CLASSES
from swin_dense.datasets.paths import first_names, require_file, require_folder
from swin_dense.errors import InputError

VOID = 0


@dataclasses.dataclass(frozen=True)
class Classes:
    """Class names; the position of a name in `names` is its label."""

    things: tuple[str, ...]
    stuff: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.things + self.stuff


def read_classes(annotation_file: str | Path, wanted: Iterable[str] | None = None) -> Classes:
    """Read the classes of a file, or those of them that are wanted, in the order of `wanted`."""
    return _classes(load(annotation_file, panoptic=True), annotation_file, wanted, subset=True)


def read_samples(
    annotation_file: str | Path, image_dir: str | Path, segment_dir: str | Path, classes: Classes
) -> list[dict[str, Any]]:
    """Read one dict for each annotated image, with mmdet's keys, in the order of the file.

    "segments" lists dicts of id, label, isthing and iscrowd; the label of a class that is not
    among `classes` is None.
    """
    content = load(annotation_file, panoptic=True)
    label_of = {name: label for label, name in enumerate(classes.names)}
    names = categories_of(content, annotation_file)
    images = {image["id"]: image for image in content["images"]}
    samples = []
    for entry in content["annotations"]:
        image = images[entry["image_id"]]
        segments = []
        for segment in entry["segments_info"]:
            name = names[segment["category_id"]]
            segments.append(
                {
                    "id": segment["id"],
                    "label": label_of.get(name),
                    "isthing": name in classes.things,
                    "iscrowd": bool(segment.get("iscrowd")),
                }
            )
        samples.append(
            {
                "img_path": str(Path(image_dir) / image["file_name"]),
                "img_id": image["id"],
                "seg_map_path": str(Path(segment_dir) / entry["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "segments": segments,
            }
        )
    return samples


def read_segments(path: str | Path, known: Iterable[int]) -> np.ndarray:
    """Read a panoptic PNG: int32 (h, w), the id of the segment at each pixel, 0 for void.

    Args:
        known: the ids its annotation lists; a pixel of any other is an error.
    """
    data = require_file(path, "panoptic PNG").read_bytes()
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, *DECODING_FAILED) as error:
        raise InputError(
            f"{path}: the panoptic PNG is no image, cut off or damaged ({len(data)} bytes, "
            f"{error}). Copy or export it again."
        ) from error
    if image.format in ("JPEG", "WEBP") or image.mode not in ("RGB", "RGBA"):
        raise InputError(
            f"{path}: segments are numbered by colour, R + 256 G + 256^2 B, in an RGB image stored "
            f"without loss; this is {image.format} of mode {image.mode}. Export it as an RGB PNG."
        )
    red, green, blue = np.moveaxis(np.asarray(image)[..., :3].astype(np.int32), -1, 0)
    ids = red + 256 * green + 256**2 * blue
    unknown = [str(i) for i in sorted(set(np.unique(ids).tolist()) - set(known) - {VOID})]
    if unknown:
        raise InputError(
            f"{path}: every pixel is void (0) or of a segment that segments_info lists; "
            f"{len(unknown)} ids are not listed: {first_names(unknown)}. Are the PNGs and the "
            "annotation file of one export?"
        )
    return ids


@dataclasses.dataclass
class Summary:
    """What an annotation file holds. Segments and images are counted per class."""

    annotation_file: str
    images: int
    kept_images: int  # with a segment to train on
    crowds: int
    looked_at: int  # PNGs
    classes: Classes
    segments: dict[str, int]
    images_with: dict[str, int]
    warnings: list[str] = dataclasses.field(default_factory=list)

    def describe(self, table: bool = True) -> str:
        """Return the counts as text: a line about the file, one per class, one per warning."""
        width = max([5, *map(len, self.segments)])
        rows = [
            f"{name:{width}} {'thing' if name in self.classes.things else 'stuff'} "
            f"{count:>9} {self.images_with[name]:>9}"
            for name, count in self.segments.items()
        ]
        return "\n".join(
            [
                f"{self.annotation_file}: {self.images} images, {self.kept_images} of them with "
                f"segments; {sum(self.segments.values())} segments, {self.crowds} crowds beside; "
                f"{self.looked_at} PNGs looked at",
                *([f"{'class':{width}} kind   segments    images", *rows] if table else []),
                *(f"warning: {text}" for text in self.warnings),
            ]
        )


def check(
    annotation_file: str | Path,
    image_dir: str | Path,
    segment_dir: str | Path,
    classes: Iterable[str] | None = None,
    subset: bool = False,
    min_side: int = 0,
    sample: int = 50,
) -> Summary:
    """Find what would stop or spoil a training run; mistakes are raised together.

    Args:
        classes: names to train on; None for all of the file.
        subset: whether the file may have categories beyond `classes`.
        min_side: images with a shorter side below it are not trained on.
        sample: how many PNGs, evenly spaced, are compared with their images and segments.
    """
    content = load(annotation_file, panoptic=True)
    chosen = _classes(content, annotation_file, classes, subset)
    images, annotations = content["images"], content["annotations"]
    problems = [
        *field_problems("images", images),
        *field_problems("panoptic annotations", annotations),
    ]
    if not problems:
        segments = [segment for entry in annotations for segment in entry["segments_info"]]
        problems += field_problems("segments", segments)
    if not problems:
        problems += _link_problems(content)
        problems += image_problems(images, require_folder(image_dir, "image folder"))
        folder = require_folder(segment_dir, "folder of panoptic PNGs")
        problems += image_problems(annotations, folder, "panoptic PNGs")
    if not problems:
        samples = read_samples(annotation_file, image_dir, segment_dir, chosen)
        count = min(sample, len(samples))
        looked_at = [samples[i * len(samples) // count] for i in range(count)]
        problems += _png_problems(looked_at)
        summary = _count(annotation_file, len(images), samples, chosen, min_side)
        summary.looked_at = count
        if not summary.kept_images:
            problems.append(
                f"0 of {len(images)} images kept: none of at least {min_side} pixels has a segment "
                f"of the classes {list(chosen.names)}. Correct the classes or the annotations."
            )
    if problems:
        raise InputError(
            "\n  ".join([f"{annotation_file}: the data set cannot be used:", *problems])
        )
    return summary


def _classes(
    content: dict, path: str | Path, wanted: Iterable[str] | None, subset: bool
) -> Classes:
    names = categories_of(content, path)
    entries = content["categories"]
    unsaid = [entry["name"] for entry in entries if entry.get("isthing") not in (0, 1)]
    if unsaid:
        raise InputError(
            f"{path}: every category of a panoptic file says whether it is a thing: 'isthing' is 1 "
            f"for what is counted one by one and 0 for stuff. {len(unsaid)} of {len(entries)} do "
            f"not: {first_names(unsaid)}. Add the field."
        )
    wanted = tuple(names.values()) if wanted is None else wanted
    try:
        chosen = tuple(match_classes(wanted, names, subset))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if len(chosen) > MOST_CLASSES:
        raise InputError(
            f"{path}: at most {MOST_CLASSES} classes, for label 255 means void; the file has "
            f"{len(chosen)}. Choose among them with `classes`."
        )
    things = {entry["name"] for entry in entries if entry["isthing"]}
    return Classes(
        tuple(name for name in chosen if name in things),
        tuple(name for name in chosen if name not in things),
    )


def _link_problems(content: dict) -> Iterator[str]:
    """Ids that are shared, or that annotations name and no entry has."""
    images, annotations = content["images"], content["annotations"]
    for text, values in (
        ("ids are shared by several images", [image["id"] for image in images]),
        ("images have several annotations", [entry["image_id"] for entry in annotations]),
    ):
        if twice := repeated(values):
            yield f"{len(twice)} {text}, the first are {twice[:3]}. Only one would be seen."
    there = {image["id"] for image in images}
    lost = [entry["image_id"] for entry in annotations if entry["image_id"] not in there]
    if lost:
        yield (
            f"{len(lost)} of {len(annotations)} annotations have an image_id that no entry of "
            f"images has as id: {lost[:3]}. Correct them or remove the annotations."
        )
    categories = {entry["id"] for entry in content["categories"]}
    found = {s["category_id"] for entry in annotations for s in entry["segments_info"]}
    if unknown := sorted(found - categories, key=str):
        yield (
            f"segments have category ids that no category has: {unknown[:3]}, where ids are like "
            f"{sorted(categories, key=str)[:3]}. Correct them or add the categories."
        )
    doubled = [
        entry["file_name"]
        for entry in annotations
        if repeated(segment["id"] for segment in entry["segments_info"])
    ]
    if doubled:
        yield (
            f"{len(doubled)} annotations list a segment id twice, the first is that of "
            f"{doubled[0]}: which class its pixels have cannot be told. Number them anew."
        )


def _png_problems(samples: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line if entry, image and PNG differ in size, and a line if some cannot be used."""
    sizes, others = [], []
    for sample in samples:
        stated = (sample["height"], sample["width"])
        try:
            ids = read_segments(sample["seg_map_path"], [s["id"] for s in sample["segments"]])
            image_hw = image_size(sample["img_path"])
        except InputError as error:
            others.append(str(error))
            continue
        if not stated == ids.shape == image_hw:
            shown = [f"{w}x{h}" for h, w in (stated, image_hw, ids.shape)]
            sizes.append(
                f"{sample['seg_map_path']}: the annotation file says {shown[0]} pixels, the image "
                f"has {shown[1]}, the PNG {shown[2]} (width x height)"
            )
    if sizes:
        yield (
            f"an image and its PNG have the size the file states; {len(sizes)} of {len(samples)} "
            f"looked at do not. {sizes[0]}. Export them anew, or remove an orientation tag (EXIF)."
        )
    if others:
        yield f"{len(others)} of {len(samples)} PNGs looked at cannot be used. {others[0]}"


def _count(
    annotation_file: str | Path,
    images: int,
    samples: list[dict[str, Any]],
    classes: Classes,
    min_side: int,
) -> Summary:
    segments: collections.Counter = collections.Counter()
    images_with: collections.Counter = collections.Counter()
    crowds = small = kept = 0
    for sample in samples:
        if min(sample["height"], sample["width"]) < min_side:
            small += 1
            continue
        crowds += sum(s["iscrowd"] and s["label"] is not None for s in sample["segments"])
        labels = labels_to_learn(sample)
        kept += bool(labels)
        segments.update(labels)
        images_with.update(set(labels))
    summary = Summary(
        str(annotation_file),
        images,
        kept,
        crowds,
        0,
        classes,
        {name: segments[label] for label, name in enumerate(classes.names)},
        {name: images_with[label] for label, name in enumerate(classes.names)},
    )
    never = [name for name, count in summary.segments.items() if not count]
    bare = images - len(samples)
    for number, text in (
        (bare, f"{bare} of {images} images have no annotation and are left out"),
        (small, f"{small} of {images} images are left out: a side below {min_side} pixels"),
        (len(never), f"classes without any segment: {', '.join(never)}"),
    ):
        if number:
            summary.warnings.append(text)
    return summary


def labels_to_learn(sample: Mapping[str, Any]) -> list[int]:
    """Return the labels of a sample's segments, without crowds and classes that were not chosen."""
    return [
        segment["label"]
        for segment in sample["segments"]
        if segment["label"] is not None and not segment["iscrowd"]
    ]
