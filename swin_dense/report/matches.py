"""Take what was matched in each image out of hotcoco's evaluation."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import hotcoco
import numpy as np

from swin_dense.report import records

IMAGES_AT_ONCE = 250  # whose matches hotcoco hands over as Python objects


def of_objects(
    judged: hotcoco.COCOeval, kind: str, names: Mapping[int, str], lvis: bool = False
) -> records.Objects:
    """Take the matches out of an evaluation.

    Args:
        judged: one that has evaluated.
        names: image id -> what the image is called.
        lvis: whether it was judged as LVIS does.
    """
    params, truth = judged.params, judged.coco_gt
    ids, categories = list(params.img_ids), list(params.cat_ids)
    cats = truth.cats
    classes = tuple(cats[c]["name"] for c in categories) if params.use_cats else ("any object",)
    label = {category: k for k, category in enumerate(categories)} if params.use_cats else {}
    areas = [list(area) for area in params.area_rng]
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    objects: list[list[tuple[int, int, int]]] = [[] for _ in params.area_rng]
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        some = ids[start : start + IMAGES_AT_ONCE]
        part = hotcoco.COCOeval(truth, judged.coco_dt, judged.params.iou_type, lvis_style=lvis)
        for name in ("cat_ids", "iou_thrs", "area_rng", "area_rng_lbl", "max_dets", "use_cats"):
            setattr(part.params, name, getattr(params, name))
        part.params.img_ids = some
        part.evaluate()
        place = {image: start + i for i, image in enumerate(some)}
        cells: dict[tuple[int, int], list[Any]] = {}
        for cell in part.eval_imgs:
            if cell is not None:  # hotcoco leaves out what has neither objects nor detections
                k = label.get(cell["category_id"], 0)
                of_areas = cells.setdefault((place[cell["image_id"]], k), [None] * len(areas))
                of_areas[areas.index(list(cell["aRng"]))] = cell
        for image, k in sorted(cells):
            _take(columns, objects, image, k, cells[image, k])
    empty = [np.zeros(0, int)] * 3 + [np.zeros(0)]
    flags = np.zeros((len(params.area_rng), len(params.iou_thrs), 0), bool)
    joined = [
        np.concatenate([none, *found]) for none, found in zip(empty, columns[:4], strict=True)
    ]
    hit, ignored = (np.concatenate([flags, *found], 2) for found in columns[4:])
    return records.Objects(
        kind=kind,
        classes=classes,
        images=tuple(names[i] for i in ids),
        truth=_truths(truth, ids, kind),
        thresholds=np.array(params.iou_thrs),
        areas=tuple(params.area_rng_lbl),
        most=tuple(params.max_dets),
        image=joined[0],
        label=joined[1],
        rank=joined[2],
        score=joined[3],
        hit=hit,
        ignored=ignored,
        objects=[np.array(rows, int).reshape(-1, 3) for rows in objects],
    )


def _take(columns: Any, objects: Any, image: int, k: int, of_areas: Sequence[Any]) -> None:
    """Add what one image has of one class."""
    for area, cell in enumerate(of_areas):
        if cell is None:
            continue
        counting = len(cell["gtIgnore"]) - sum(cell["gtIgnore"])
        if counting:
            objects[area].append((image, k, counting))
    scores: list[float] = next((cell["dtScores"] for cell in of_areas if cell is not None), [])
    count = len(scores)
    if not count:
        return
    columns[0].append(np.full(count, image))
    columns[1].append(np.full(count, k))
    columns[2].append(np.arange(count))
    columns[3].append(np.array(scores, float))
    columns[4].append(np.array([cell["dtMatched"] for cell in of_areas], bool))
    columns[5].append(np.array([cell["dtIgnore"] for cell in of_areas], bool))


def _truths(truth: hotcoco.COCO, ids: Sequence[int], kind: str) -> tuple[str, ...]:
    """Return a digest of the objects of each image."""
    found = []
    for image in ids:
        rows = []
        for one in truth.load_anns(truth.get_ann_ids(img_ids=[image])):
            row = [one["category_id"], *one["bbox"], one["area"], int(one.get("iscrowd", 0))]
            if kind == "segm":
                row.append(str(truth.ann_to_rle(one)["counts"]))
            rows.append(str(row))
        found.append(hashlib.sha1("\n".join(sorted(rows)).encode()).hexdigest()[:16])
    return tuple(found)
