"""Draw the worst images of an evaluation of objects, the truth beside the detections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from swin_dense.datasets import colours, images
from swin_dense.report import page, pictures, records
from swin_dense.report.masks import Masks

TITLES = {"bbox": "boxes", "segm": "masks", "boundary": "boundaries", "proposal": "proposals"}
AT_ONCE = 4  # images that show without being asked for
DRAWN = 60  # objects in one picture


def drawn(
    judged: hotcoco.COCOeval,
    paths: Mapping[int, Path],
    matched: records.Objects,
    worst: Sequence[Mapping[str, Any]],
    lvis: bool,
) -> page.Html:
    """Draw images with their objects beside what was detected.

    Args:
        judged: their evaluation.
        paths: image id -> its file.
        worst: rows with image, its place in `matched`, hits, missed and false.
    """
    ids, least = list(judged.params.img_ids), matched.best_score()
    parts: list[Any] = [
        page.paragraph(
            f"Lowest F1 of {TITLES.get(matched.kind, matched.kind)} at IoU 0.5, from detections "
            f"with a score of at least {least:.2f}. Truth to the left, where nothing found an "
            "object it is marked as missed; detections to the right, false ones marked."
        )
    ]
    if not worst:
        parts.append(page.paragraph("No image has a mistake."))
    shown = []
    for row in worst:
        if ids[row["place"]] not in paths:  # an image of the annotations that was not predicted
            continue
        truth, detected = _drawn(judged, matched, paths, ids[row["place"]], lvis)
        counts = f"{row['hits']} found, {row['missed']} missed, {row['false']} false"
        side_by_side = page.pictures(
            [
                (truth, "truth", f"{row['image']} with its true objects: {counts}"),
                (detected, counts, f"{row['image']} with what was detected: {counts}"),
            ]
        )
        shown.append(page.join([page.heading(row["image"]), side_by_side]))
    return page.join([*parts, page.first_few(shown, AT_ONCE, "images")])


def _drawn(
    judged: hotcoco.COCOeval,
    matched: records.Objects,
    paths: Mapping[int, Path],
    image: int,
    lvis: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the truth and the detections of one image."""
    rgb = images.as_rgb(paths[image])
    best = matched.best_score()
    diagnosed = _matches(judged, image, best, lvis)
    drawn = []
    for coco, right, word, least in (
        (judged.coco_gt, diagnosed[0], "missed", 0.0),
        (judged.coco_dt, diagnosed[1], "false", best),
    ):
        rows = coco.load_anns(coco.get_ann_ids(img_ids=[image]))
        rows = [row for row in rows if row.get("score", 1.0) >= least]
        rows.sort(key=lambda row: -row.get("score", row["area"]))
        drawn.append(_overlay(judged, coco, rgb, rows[:DRAWN], right, word, matched.kind))
    return drawn[0], drawn[1]


def _matches(
    judged: hotcoco.COCOeval, image: int, least: float, lvis: bool
) -> tuple[set[int], set[int]]:
    """Return the ids of the objects found and of the detections that are right, at IoU 0.5."""
    alone = hotcoco.COCOeval(
        judged.coco_gt, judged.coco_dt, judged.params.iou_type, lvis_style=lvis
    )
    for name in ("cat_ids", "iou_thrs", "max_dets", "use_cats"):
        setattr(alone.params, name, getattr(judged.params, name))
    alone.params.img_ids = [image]
    alone.params.area_rng, alone.params.area_rng_lbl = [judged.params.area_rng[0]], ["all"]
    alone.evaluate()
    objects, detections = set(), set()
    for cell in alone.eval_imgs:
        if cell is None:
            continue
        rows = zip(
            cell["dtIds"],
            cell["dtScores"],
            cell["dtMatched"][0],
            cell["dtIgnore"][0],
            cell["dtMatches"][0],
            strict=True,
        )
        for number, score, hit, ignored, partner in rows:
            if score >= least and (hit or ignored):
                detections.add(number)
                if hit:
                    objects.add(partner)
        crowds = zip(cell["gtIds"], cell["gtIgnore"], strict=True)
        objects |= {number for number, ignored in crowds if ignored}
    return objects, detections


def _overlay(
    judged: hotcoco.COCOeval,
    coco: hotcoco.COCO,
    rgb: np.ndarray,
    rows: Sequence[Mapping[str, Any]],
    right: set[int],
    word: str,
    kind: str,
) -> np.ndarray:
    cats = judged.coco_gt.cats
    order = {category: k for k, category in enumerate(judged.params.cat_ids)}
    palette = colours.palette(len(order))
    rows = [row for row in rows if row["category_id"] in order]
    corners = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    masks = None
    if kind == "segm" and rows:
        masks = Masks.of(np.stack([coco.ann_to_mask(dict(row)).astype(bool) for row in rows]))
    names = []
    for row in rows:
        score = f" {row['score']:.2f}" if "score" in row else ""
        mark = "" if row["id"] in right else f" {word}"
        names.append(f"{cats[row['category_id']]['name']}{score}{mark}")
    shades = [palette[order[row["category_id"]]] for row in rows]
    return pictures.instance_overlay(rgb, corners, masks, names, shades)
