"""Data sets in COCO panoptic format: each pixel belongs to one segment, or to none (void).

A JSON file lists the segments of each image; a PNG shows where they lie: the number of a pixel is
R + 256 G + 256^2 B, 0 is void. Segments of things are objects told apart; the stuff of one class
in an image is one region. Labels count the things first, then the stuff, as the heads expect.

Letters: h w an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets.coco_json import categories_of, load
from swin_dense.datasets.coco_layout import CLASSES_DIFFER, match_classes
from swin_dense.datasets.findings import ERROR, kind, stop
from swin_dense.datasets.image_files import TOO_LARGE
from swin_dense.datasets.images import BAND, DECODING_FAILED, TooManyPixelsError, open_image
from swin_dense.datasets.label_maps import MOST_CLASSES
from swin_dense.datasets.paths import first_names, require_file
from swin_dense.errors import InputError

VOID = 0

UNREADABLE = kind(
    "panoptic-png-unreadable",
    ERROR,
    "A panoptic PNG is a whole image.",
    "The training stops when it comes to this file, maybe after hours.",
)
NO_COLOURS = kind(
    "panoptic-png-of-another-kind",
    ERROR,
    "Segments are numbered by colour, R + 256 G + 256^2 B, stored without loss.",
    "Which segment a pixel belongs to cannot be told.",
)
NOT_LISTED = kind(
    "segment-not-listed",
    ERROR,
    "Every pixel is void (0) or of a segment that segments_info lists.",
    "Which class the pixel has cannot be told; PNGs and file may be of two exports.",
)
THINGS_UNSAID = kind(
    "isthing-absent",
    ERROR,
    "Every category of a panoptic file says whether it is a thing.",
    "Things are told apart and counted, stuff is not: the two are learnt and judged differently.",
)
TOO_MANY = kind(
    "classes-too-many",
    ERROR,
    f"A set has at most {MOST_CLASSES} classes.",
    "Label 255 means void.",
)


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
    return choose_classes(
        load(annotation_file, panoptic=True), annotation_file, wanted, subset=True
    )


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
        image = open_image(data, "panoptic PNG")
        image.load()
    except TooManyPixelsError as error:
        raise stop(TOO_LARGE, path, str(error).removeprefix("panoptic PNG: ")) from error
    except (InputError, *DECODING_FAILED) as error:
        cause = str(error).removeprefix("panoptic PNG: ").rstrip(".")
        text = f"the panoptic PNG is no image, cut off or damaged ({len(data)} bytes, {cause})."
        raise stop(UNREADABLE, path, text, "Copy or export it again.") from error
    if image.format in ("JPEG", "WEBP") or image.mode not in ("RGB", "RGBA"):
        text = (
            "segments are numbered by colour, R + 256 G + 256^2 B, in an RGB image stored without "
            f"loss; this is {image.format} of mode {image.mode}."
        )
        raise stop(NO_COLOURS, path, text, "Export it as an RGB PNG.")
    ids = np.zeros((image.height, image.width), np.int32)
    seen = np.zeros(256**3, bool)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        for i, band in enumerate(part.split()[:3]):
            ids[top : top + rows] += np.asarray(band).astype(np.int32) << 8 * i
        seen[ids[top : top + rows]] = True
    there = np.flatnonzero(seen).tolist()
    unknown = [str(i) for i in sorted(set(there) - set(known) - {VOID})]
    if unknown:
        text = (
            "every pixel is void (0) or of a segment that segments_info lists; "
            f"{len(unknown)} ids are not listed: {first_names(unknown)}."
        )
        fix = "Are the PNGs and the annotation file of one export?"
        raise stop(NOT_LISTED, path, text, fix)
    return ids


def choose_classes(
    content: dict, path: str | Path, wanted: Iterable[str] | None, subset: bool
) -> Classes:
    """Return the classes of a loaded file that are wanted, things and stuff apart.

    Args:
        path: of the file.
        wanted: names; None for all.
        subset: whether the file may have categories that are not wanted.
    """
    names = categories_of(content, path)
    entries = content["categories"]
    unsaid = [entry["name"] for entry in entries if entry.get("isthing") not in (0, 1)]
    if unsaid:
        text = (
            "every category of a panoptic file says whether it is a thing: 'isthing' is 1 for what "
            f"is counted one by one and 0 for stuff. {len(unsaid)} of {len(entries)} do not: "
            f"{first_names(unsaid)}."
        )
        raise stop(THINGS_UNSAID, path, text, "Add the field.", unsaid)
    wanted = tuple(names.values()) if wanted is None else wanted
    try:
        chosen = tuple(match_classes(wanted, names, subset))
    except InputError as error:
        raise stop(CLASSES_DIFFER, path, str(error)) from error
    if len(chosen) > MOST_CLASSES:
        text = (
            f"at most {MOST_CLASSES} classes, for label 255 means void; the file has {len(chosen)}."
        )
        raise stop(TOO_MANY, path, text, "Choose among them with `classes`.")
    things = {entry["name"] for entry in entries if entry["isthing"]}
    return Classes(
        tuple(name for name in chosen if name in things),
        tuple(name for name in chosen if name not in things),
    )


def labels_to_learn(sample: Mapping[str, Any]) -> list[int]:
    """Return the labels of a sample's segments, without crowds and classes that were not chosen."""
    return [
        segment["label"]
        for segment in sample["segments"]
        if segment["label"] is not None and not segment["iscrowd"]
    ]
