"""AP and AR of boxes, masks and proposals as COCO and LVIS define them, by hotcoco.

What is judged is held in columns: positions of images and labels instead of ids, so that ids of any
kind (texts, 64 bits, from 0) give the same numbers, and masks as run lengths. hotcoco computes what
pycocotools does, faster; pycocotools itself and ultrafast-pycocotools can be asked by name.

Letters: N images, M objects, n detections of an image, T thresholds of IoU, R of recall,
K classes, A ranges of area, D limits of detections per image.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets import coco_file, coco_json, coco_layout, coco_mask_problems
from swin_dense.errors import InputError

KINDS = ("bbox", "segm", "boundary", "proposal")
BACK_ENDS = {
    "hotcoco": "hotcoco",
    "pycocotools": "pycocotools",
    "ultrafast-pycocotools": "ultrafast_pycocotools",
}
MOST = {"proposal": (100, 300, 1000)}  # detections of an image that are looked at
MOST_ELSE = (1, 10, 100)
MOST_LVIS = (300,)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = ("", "_s", "_m", "_l")  # all, below 32^2 pixels, up to 96^2, above
MASKED = ("segm", "boundary")  # kinds
LARGE = 200_000  # masks: more are judged some images at a time
PART = 256  # images
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}  # of LVIS
OF_LVIS = ("neg_category_ids", "not_exhaustive_category_ids")  # of its images


@dataclasses.dataclass
class Truth:
    """Hold the objects of a set in columns.

    Args:
        names: of the classes, by label.
        ids: of the images in the annotation file, by position.
        sizes: (N, 2), height and width of the images.
        image, label: (M,), positions.
        boxes: (M, 4), left, top, width, height in pixels.
        areas, crowds: (M,), square pixels; groups that are no objects to find.
        masks: for each object polygons, or run lengths with size and counts, or None.
        extras: of the images and classes, what LVIS says beside.
        category_ids: of the classes in the file, by label.
    """

    names: tuple[str, ...]
    ids: tuple[Any, ...]
    sizes: np.ndarray
    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowds: np.ndarray
    masks: Sequence[Any]
    category_ids: tuple[Any, ...]
    extras: dict[str, list[dict]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place = {number: i for i, number in enumerate(self.ids)}

    @classmethod
    def read(cls, annotation_file: str | Path, names: Iterable[str], lvis: bool = False) -> Truth:
        """Read the objects of these classes from a COCO instance file.

        Images come in the order of their numbers, as pycocotools takes them, texts in that of the
        file: between detections of one score the first image wins. A class that the file does not
        list has no objects, and a number that no other has.

        Args:
            lvis: whether to read what LVIS says of images and classes.
        """
        file = coco_file.open_coco(annotation_file)
        names = tuple(names)
        known = coco_layout.present_classes(names, file.categories)
        taken = (n for n in file.categories if isinstance(n, int))
        free = itertools.count(max(taken, default=0) + 1)
        numbers = tuple(known[n] if n in known else next(free) for n in names)
        order = list(range(len(file)))
        if all(isinstance(number, int | float) for number in file.image_ids):
            order.sort(key=file.image_ids.__getitem__)
        place_of = np.empty(len(file), np.int64)
        place_of[order] = np.arange(len(file))
        label_of = {number: label for label, number in enumerate(numbers)}
        labels = np.array([label_of.get(n, -1) for n in file.category_ids] + [-1], np.int64)
        label = labels[file.category]  # -1, a category that the file lacks, is the last
        rows = np.flatnonzero((label >= 0) & (file.image >= 0))
        return cls(
            names,
            tuple(file.image_ids[i] for i in order),
            np.stack([file.heights, file.widths], 1)[order],
            place_of[file.image[rows]],
            label[rows],
            np.asarray(file.box)[rows],
            np.asarray(file.area)[rows],
            np.asarray(file.crowd)[rows],
            _Masks(file, rows),
            numbers,
            _extras(file.path, order, label_of) if lvis else {},
        )


class _Masks(Sequence):
    """Decode the mask of an object when it is asked for; before the first, look at all of them."""

    def __init__(self, file: coco_file.CocoFile, rows: np.ndarray):
        self.file, self.rows, self._looked_at = file, rows, False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        if not self._looked_at:
            coco_mask_problems.require_drawable(self.file, self.rows)
            self._looked_at = True
        return self.file.segmentation(int(self.rows[i]))


def _extras(path: Path, order: Sequence[int], label_of: Mapping) -> dict[str, list[dict]]:
    """Read what LVIS says beside: of classes their frequency, of images what was looked for."""
    content = coco_json.load(path)
    by_id = {entry["id"]: entry for entry in content["categories"]}
    frequencies = [{"frequency": by_id.get(n, {}).get("frequency", "")} for n in label_of]
    if not any(row["frequency"] in FREQUENCIES for row in frequencies):
        raise InputError(
            f"{path}: lvis=True needs LVIS's annotations, whose categories have a frequency (r, c "
            "or f); here none has. Leave lvis out for COCO's numbers."
        )
    images = [_labels_of(content["images"][i], label_of) for i in order]
    return {"images": images, "categories": frequencies}


def _labels_of(image: Mapping, label_of: Mapping) -> dict:
    """Return what LVIS says of an image, in our numbers of the classes."""
    return {
        key: [label_of[n] + 1 for n in image[key] if n in label_of]
        for key in OF_LVIS
        if isinstance(image.get(key), list)
    }


def without_slivers(mask: Any) -> Any:
    """Return a mask without polygons of fewer than three points, which training passes by too."""
    if not isinstance(mask, list):
        return mask
    return [part for part in mask if len(part) >= 6 and len(part) % 2 == 0]


@dataclasses.dataclass
class Found:
    """Hold what was found in one image.

    Args:
        place: of the image in `Truth.ids`.
        boxes: (n, 4), left, top, right, bottom in pixels.
        scores, labels: (n,).
        masks: the counts of run lengths, each bytes; None for a detector of boxes.
        areas: (n,), pixels of the masks.
        mask_scores: (n,), where masks have scores of their own.
    """

    place: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[bytes] | None = None
    areas: np.ndarray | None = None
    mask_scores: np.ndarray | None = None


@dataclasses.dataclass
class Judged:
    """Hold the curves of one kind; see `numbers`.

    Args:
        precision: (T, R, K, A, D), -1 where there is no object.
        recall: (T, K, A, D), -1 likewise.
        thresholds: (T,).
        most: the limits of detections per image.
        evaluator: a COCOeval, which can be asked for more; None where masks were judged by parts.
    """

    kind: str
    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray
    most: tuple[int, ...]
    evaluator: Any
    frequencies: tuple[str, ...] = ()

    def numbers(self, label: int | None = None) -> dict[str, float]:
        """Return AP and AR from 0 to 1 by their names; what no object could give is absent.

        Args:
            label: of one class; None for the means of all.
        """
        found: dict[str, float] = {}
        last = self.most[-1]
        of_classes = slice(None) if label is None else slice(label, label + 1)
        if self.kind != "proposal":
            found["mAP"] = _mean(self.precision[:, :, of_classes, 0, -1])
            for threshold in (0.5, 0.75):
                at = np.isclose(self.thresholds, threshold)
                if at.any():
                    found[f"mAP_{round(100 * threshold)}"] = _mean(
                        self.precision[at, :, of_classes, 0, -1]
                    )
            for a, area in enumerate(AREAS[1:], 1):
                found[f"mAP{area}"] = _mean(self.precision[:, :, of_classes, a, -1])
            for frequency in FREQUENCIES if self.frequencies else ():
                of = [f == frequency for f in self.frequencies]
                found[f"mAP_{frequency}"] = _mean(self.precision[:, :, of, 0, -1])
        for d, most in enumerate(self.most):
            found[f"AR@{most}"] = _mean(self.recall[:, of_classes, 0, d])
        for a, area in enumerate(AREAS[1:], 1):
            found[f"AR{area}@{last}"] = _mean(self.recall[:, of_classes, a, -1])
        return {name: value for name, value in found.items() if value >= 0}


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0


def most_of(kind: str, lvis: bool = False) -> tuple[int, ...]:
    """Return the usual limits of detections per image."""
    return MOST_LVIS if lvis else MOST.get(kind, MOST_ELSE)


def require_back_end(name: str) -> None:
    """Refuse a back end that is unknown or not installed."""
    if name not in BACK_ENDS:
        raise InputError(f"back_end is one of {', '.join(BACK_ENDS)}, not {name!r}.")
    if importlib.util.find_spec(BACK_ENDS[name]) is None:
        raise InputError(
            f"back_end={name!r}: the package is not installed. Install it with pip install {name}, "
            "or leave back_end out for hotcoco."
        )


def judge(
    truth: Truth,
    found: Iterable[Found],
    kind: str,
    back_end: str = "hotcoco",
    most: Sequence[int] | None = None,
    thresholds: Sequence[float] | None = None,
    lvis: bool = False,
    whole: bool = True,
) -> Judged:
    """Compare all that was found with the truth.

    Args:
        found: at most one of each image; of images it lacks nothing was found.
        kind: "bbox", "segm", "boundary" (the smaller of the IoU of masks and that of their
            boundaries, arXiv 2103.16562) or "proposal" (classes do not count).
        most: limits of detections per image, rising; see `most_of`.
        thresholds: of IoU; COCO's are 0.5, 0.55 to 0.95.
        lvis: as LVIS does: classes that were not looked for in an image do not count there.
        whole: keep an evaluator that can be asked for more; else many masks take less memory.

    Raises:
        InputError: masks are asked for and either side has none; a score is not a number.
    """
    most = tuple(most or most_of(kind, lvis))
    stated = np.asarray(THRESHOLDS if thresholds is None else thresholds, np.float64)
    found = list(found)
    many = kind == "segm" and sum(len(one.boxes) for one in found) > LARGE
    parts = many and back_end == "hotcoco" and not whole
    if parts:
        evaluator = _by_parts(truth, found, kind, most, stated, lvis)
    else:
        table = _Table.of(truth, found, kind)
        if kind == "boundary" and back_end == "hotcoco":
            back_end = "pycocotools"  # the one whose IoU can be replaced
        if back_end == "hotcoco":
            evaluator = _by_hotcoco(truth, table, lvis)
        else:
            evaluator = _by_pycocotools(truth, table, kind, BACK_ENDS[back_end])
        _set(evaluator.params, kind, most, stated, lvis)
        evaluator.evaluate()
    evaluator.accumulate()
    curves = evaluator.eval
    precision, recall = np.asarray(curves["precision"]), np.asarray(curves["recall"])
    if lvis:  # its curves have no axis of limits
        precision = precision.reshape(*precision.shape[:4], -1)
        recall = recall.reshape(*recall.shape[:3], -1)
    frequencies = [c.get("frequency", "") for c in truth.extras.get("categories", [])]
    kept = None if parts else evaluator
    return Judged(kind, precision, recall, stated, most, kept, tuple(frequencies) if lvis else ())


def _set(params: Any, kind: str, most: tuple[int, ...], thresholds: np.ndarray, lvis: bool) -> Any:
    params.maxDets = list(most)
    params.iouThrs = thresholds.tolist() if lvis else thresholds
    if kind == "proposal":
        params.useCats = 0
    return params


@dataclasses.dataclass
class _Table:
    """All detections as rows: image from 1, left, top, width, height, score, class from 1."""

    rows: np.ndarray
    masks: list[Any] | None
    areas: np.ndarray  # of the masks

    @classmethod
    def of(cls, truth: Truth, found: Iterable[Found], kind: str) -> _Table:
        masked = kind in MASKED
        masks: list[Any] = []
        parts, areas = [np.zeros((0, 7))], [np.zeros(0)]
        for one in found:
            scores = one.scores
            if masked:
                if one.masks is None:
                    raise InputError(
                        f"metric {kind!r} judges masks, and this model finds boxes alone. Ask for "
                        "metric='bbox'."
                    )
                scores = scores if one.mask_scores is None else one.mask_scores
                size = truth.sizes[one.place].tolist()
                masks += [{"size": size, "counts": counts} for counts in one.masks]
                areas.append(one.areas if one.areas is not None else _areas(masks, len(one.masks)))
            if not np.isfinite(scores).all():
                raise InputError(
                    f"image {truth.ids[one.place]}: a score is not a finite number. The weights "
                    "are not finite, or the precision is too low: test in float32."
                )
            boxes = one.boxes.astype(np.float64)
            rows = np.empty((len(boxes), 7))
            rows[:, 0], rows[:, 5], rows[:, 6] = one.place + 1, scores, one.labels + 1
            rows[:, 1:3], rows[:, 3:5] = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
            parts.append(rows)
        bare = sum(mask is None for mask in truth.masks) if masked else 0
        if bare:
            raise InputError(
                f"metric {kind!r} judges masks, and {bare} of {len(truth.masks)} objects of the "
                "truth have none. Ask for metric='bbox'."
            )
        return cls(np.concatenate(parts), masks if masked else None, np.concatenate(areas))


def _areas(masks: list[dict], count: int) -> np.ndarray:
    """Return the pixels of the last `count` masks."""
    import hotcoco

    return np.asarray(hotcoco.mask.area(masks[len(masks) - count :]) if count else (), np.float64)


def _images(truth: Truth) -> list[dict]:
    extras = truth.extras.get("images") or [{}] * len(truth.ids)
    return [
        {"id": i + 1, "height": h, "width": w, **extra}
        for i, ((h, w), extra) in enumerate(zip(truth.sizes.tolist(), extras, strict=True))
    ]


def _categories(truth: Truth) -> list[dict]:
    extras = truth.extras.get("categories") or [{}] * len(truth.names)
    return [
        {"id": i + 1, "name": name, **extra}
        for i, (name, extra) in enumerate(zip(truth.names, extras, strict=True))
    ]


def _by_parts(
    truth: Truth,
    found: Sequence[Found],
    kind: str,
    most: tuple[int, ...],
    thresholds: np.ndarray,
    lvis: bool,
) -> Any:
    """Judge masks some images at a time: what was matched stays in memory, the masks do not."""
    import hotcoco

    params = _set(hotcoco.Params("segm"), kind, most, thresholds, lvis)
    stream = hotcoco.StreamingEval(_categories(truth), "segm", lvis_style=lvis, params=params)
    images, by_place = _images(truth), {one.place: one for one in found}
    order = np.argsort(truth.image, kind="stable")
    ends = np.searchsorted(truth.image[order], np.arange(len(images) + 1))
    for first in range(0, len(images), PART):
        last = min(first + PART, len(images))
        known = [
            {
                "id": i + 1,
                "image_id": int(truth.image[i]) + 1,
                "category_id": int(truth.label[i]) + 1,
                "bbox": truth.boxes[i].tolist(),
                "area": float(truth.areas[i]),
                "iscrowd": int(truth.crowds[i]),
                "segmentation": truth.masks[i],
            }
            for i in order[ends[first] : ends[last]].tolist()
        ]
        table = _Table.of(truth, [by_place[p] for p in range(first, last) if p in by_place], kind)
        judged = [
            {"image_id": int(r[0]), "score": r[5], "category_id": int(r[6]), "segmentation": mask}
            for r, mask in zip(table.rows.tolist(), table.masks or [], strict=True)
        ]
        stream.update(images[first:last], known, judged)
    return stream.finalize()


def _by_hotcoco(truth: Truth, table: _Table, lvis: bool) -> Any:
    import hotcoco

    masked = table.masks is not None
    known = hotcoco.COCO.from_arrays(
        _images(truth),
        _categories(truth),
        truth.image + 1,
        truth.label + 1,
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowds,
        segmentation=list(truth.masks) if masked else None,
    )
    if masked:
        judged = known.load_res(table.rows, segmentation=table.masks)
        judged.update_anns(ids=np.arange(1, len(table.rows) + 1), area=table.areas)
    else:
        judged = known.load_res(table.rows)
    iou = "segm" if masked else "bbox"
    return hotcoco.COCOeval(known, judged, iou, lvis_style=lvis)


def _by_pycocotools(truth: Truth, table: _Table, kind: str, package: str) -> Any:
    from swin_dense.evaluation import boundary

    if package == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        found = importlib.import_module(package)
        COCO, COCOeval = found.COCO, found.COCOeval
    masked = table.masks is not None
    known, judged = COCO(), COCO()
    known.dataset = {
        "info": {},
        "images": _images(truth),
        "categories": _categories(truth),
        "annotations": [
            {
                "id": i + 1,
                "image_id": image + 1,
                "category_id": label + 1,
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
                **({"segmentation": mask} if masked else {}),
            }
            for i, (image, label, box, area, crowd, mask) in enumerate(
                zip(
                    truth.image.tolist(),
                    truth.label.tolist(),
                    truth.boxes.tolist(),
                    truth.areas.tolist(),
                    truth.crowds.tolist(),
                    truth.masks,
                    strict=True,
                )
            )
        ],
    }
    known.createIndex()
    results = [
        {"image_id": int(r[0]), "score": r[5], "category_id": int(r[6]), "bbox": r[1:5]}
        for r in table.rows.tolist()
    ]
    for row, mask in zip(results, table.masks or [], strict=False):
        del row["bbox"]
        row["segmentation"] = mask
    if results:
        judged = known.loadRes(results)
    else:
        judged.dataset = {**known.dataset, "annotations": []}
        judged.createIndex()
    if kind == "boundary":
        return boundary.evaluator(known, judged)
    return COCOeval(known, judged, "segm" if masked else "bbox")
