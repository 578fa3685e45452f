"""Whole sets in COCO panoptic format: whether file, images and PNGs fit, and what they hold."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from swin_dense.datasets.coco_counts import CLASS_WITHOUT, NO_OBJECT, NOTHING_KEPT, SMALL_IMAGE
from swin_dense.datasets.coco_fields import Tally
from swin_dense.datasets.coco_json import load, repeated
from swin_dense.datasets.coco_panoptic import (
    Classes,
    choose_classes,
    labels_to_learn,
    read_samples,
    read_segments,
)
from swin_dense.datasets.coco_problems import IMAGE_ID_TWICE, UNKNOWN_CATEGORY, UNKNOWN_IMAGE
from swin_dense.datasets.findings import ERROR, Finding, kind, of_error, refuse
from swin_dense.datasets.image_names import absent_files
from swin_dense.datasets.images import image_size
from swin_dense.datasets.paths import first_names, require_folder
from swin_dense.errors import InputError

ANNOTATED_TWICE = kind(
    "image-annotated-twice",
    ERROR,
    "An image of a panoptic file has one annotation.",
    "Only the last would be seen.",
)
SEGMENT_TWICE = kind(
    "segment-listed-twice",
    ERROR,
    "No two segments of an image share an id.",
    "Which class their pixels have cannot be told.",
)
SIZES_DIFFER = kind(
    "panoptic-size-differs",
    ERROR,
    "An image and its panoptic PNG have the size that the file states.",
    "Pixels would be learnt as what lies elsewhere.",
)
UNUSABLE = kind(
    "panoptic-image-unusable",
    ERROR,
    "Every image and panoptic PNG can be read.",
    "The training stops when it comes to this file, maybe after hours.",
)


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
    sample: int | None = 50,
) -> Summary:
    """Refuse what would stop or spoil a training run, all of it together; see `examine`."""
    summary, found = examine(
        annotation_file, image_dir, segment_dir, classes, subset, min_side, sample
    )
    refuse(annotation_file, found)
    assert summary is not None  # nothing was refused
    return summary


def examine(
    annotation_file: str | Path,
    image_dir: str | Path,
    segment_dir: str | Path,
    classes: Iterable[str] | None = None,
    subset: bool = False,
    min_side: int = 0,
    sample: int | None = None,
) -> tuple[Summary | None, list[Finding]]:
    """Find all there is to say about a set.

    Args:
        classes: names to train on; None for all of the file.
        subset: whether the file may have categories beyond `classes`.
        min_side: images with a shorter side below it are not trained on.
        sample: how many PNGs, evenly spaced, are compared with their images and segments; None
            for all.

    Returns:
        what the set holds, None if it cannot be told, and findings.

    Raises:
        FoundError: the file cannot be read, is none of this format, or has other classes.
    """
    content = load(annotation_file, panoptic=True)
    chosen = choose_classes(content, annotation_file, classes, subset)
    images, annotations = content["images"], content["annotations"]
    found = _fields("images", images, annotation_file)
    found += _fields("panoptic annotations", annotations, annotation_file)
    if not found:
        segments = [segment for entry in annotations for segment in entry["segments_info"]]
        found += _fields("segments", segments, annotation_file)
    if found:
        return None, found
    found += _link_findings(content, annotation_file)
    found += absent_files(images, require_folder(image_dir, "image folder"))
    folder = require_folder(segment_dir, "folder of panoptic PNGs")
    found += absent_files(annotations, folder, "panoptic PNGs")
    if found:
        return None, found
    samples = read_samples(annotation_file, image_dir, segment_dir, chosen)
    count = len(samples) if sample is None else min(sample, len(samples))
    looked_at = [samples[i * len(samples) // count] for i in range(count)]
    found += _png_findings(looked_at, segment_dir)
    summary, more = _count(annotation_file, len(images), samples, chosen, min_side)
    summary.looked_at = count
    if not summary.kept_images:
        text = (
            f"0 of {len(images)} images kept: none of at least {min_side} pixels has a segment of "
            f"the classes {list(chosen.names)}."
        )
        fix = "Correct the classes or the annotations."
        found.append(NOTHING_KEPT.found(text, fix, annotation_file))
    return summary, found + more


def _fields(what: str, entries: Iterable[Any], file: str | Path) -> list[Finding]:
    tally, total = Tally(what), 0
    for entry in entries:
        tally.add(entry)
        total += 1
    return tally.findings(total, file)


def _link_findings(content: dict, file: str | Path) -> Iterator[Finding]:
    """Find ids that are shared, or that annotations name and no entry has."""
    images, annotations = content["images"], content["annotations"]
    for of, text, values in (
        (IMAGE_ID_TWICE, "ids are shared by several images", [image["id"] for image in images]),
        (
            ANNOTATED_TWICE,
            "images have several annotations",
            [entry["image_id"] for entry in annotations],
        ),
    ):
        if twice := repeated(values):
            what = f"{len(twice)} {text}, the first are {twice[:3]}."
            yield of.found(what, "Only one would be seen.", file, twice)
    there = {image["id"] for image in images}
    lost = [entry["image_id"] for entry in annotations if entry["image_id"] not in there]
    if lost:
        text = (
            f"{len(lost)} of {len(annotations)} annotations have an image_id that no entry of "
            f"images has as id: {lost[:3]}."
        )
        yield UNKNOWN_IMAGE.found(text, "Correct them or remove the annotations.", file, lost)
    categories = {entry["id"] for entry in content["categories"]}
    found = {s["category_id"] for entry in annotations for s in entry["segments_info"]}
    if unknown := sorted(found - categories, key=str):
        text = (
            f"segments have category ids that no category has: {unknown[:3]}, where ids are like "
            f"{sorted(categories, key=str)[:3]}."
        )
        yield UNKNOWN_CATEGORY.found(text, "Correct them or add the categories.", file, unknown)
    doubled = [
        entry["file_name"]
        for entry in annotations
        if repeated(segment["id"] for segment in entry["segments_info"])
    ]
    if doubled:
        text = (
            f"{len(doubled)} annotations list a segment id twice, the first is that of "
            f"{doubled[0]}: which class its pixels have cannot be told."
        )
        yield SEGMENT_TWICE.found(text, "Number them anew.", file, doubled)


def _png_findings(samples: list[dict[str, Any]], segment_dir: str | Path) -> Iterator[Finding]:
    """Find PNGs and images that differ in size, or cannot be used."""
    sizes: list[tuple[str, str]] = []
    failed: dict[Any, list[tuple[str, Finding]]] = {}
    for sample in samples:
        stated, path = (sample["height"], sample["width"]), sample["seg_map_path"]
        try:
            ids = read_segments(path, [s["id"] for s in sample["segments"]])
            image_hw = image_size(sample["img_path"])
        except InputError as error:
            finding = of_error(error, UNUSABLE)[0]
            failed.setdefault(finding.kind, []).append((path, finding))
            continue
        if not stated == ids.shape == image_hw:
            shown = [f"{w}x{h}" for h, w in (stated, image_hw, ids.shape)]
            text = (
                f"{path}: the annotation file says {shown[0]} pixels, the image has {shown[1]}, "
                f"the PNG {shown[2]} (width x height)"
            )
            sizes.append((path, text))
    if sizes:
        names = [Path(path).name for path, _ in sizes]
        text = (
            f"an image and its PNG have the size the file states; {len(sizes)} of {len(samples)} "
            f"looked at do not. {sizes[0][1]}."
        )
        fix = "Export them anew, or remove an orientation tag (EXIF)."
        yield SIZES_DIFFER.found(text, fix, segment_dir, names)
    for of, cases in failed.items():
        names, (path, first) = [Path(path).name for path, _ in cases], cases[0]
        text = f"{len(cases)} of {len(samples)} PNGs looked at cannot be used: {first_names(names)}"
        yield of.found(f"{text}. {path}: {first.what}", first.fix, segment_dir, names)


def _count(
    annotation_file: str | Path,
    images: int,
    samples: list[dict[str, Any]],
    classes: Classes,
    min_side: int,
) -> tuple[Summary, list[Finding]]:
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
    bare, found = images - len(samples), []
    for of, number, text, ids in (
        (NO_OBJECT, bare, f"{bare} of {images} images have no annotation and are left out", ()),
        (
            SMALL_IMAGE,
            small,
            f"{small} of {images} images are left out: a side below {min_side} pixels",
            (),
        ),
        (CLASS_WITHOUT, len(never), f"classes without any segment: {', '.join(never)}", never),
    ):
        if number:
            summary.warnings.append(text)
            found.append(of.found(f"{text}.", "", annotation_file, ids))
    return summary, found
