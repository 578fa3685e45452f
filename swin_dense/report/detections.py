"""The part of an evaluation's page about objects: boxes and masks.

The numbers are hotcoco's; `records` counts again per image. What is shown is in `report.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from swin_dense.report import charts, confusion, page, records, worst_objects

# As "TIDE: A General Toolbox for Identifying Object Detection Errors" (arXiv 2008.08115) names
# them; hotcoco's key, the name, what it means.
ERRORS = {
    "Cls": ("classification", "at the right place, of the wrong class"),
    "Loc": ("localisation", "of the right class, overlaps too little"),
    "Both": ("both", "of the wrong class, and overlaps too little"),
    "Dupe": ("duplicate", "an object found once more"),
    "Bkg": ("background", "nothing is there"),
    "Miss": ("missed", "an object nothing found"),
    "FP": ("every false detection", "all of the above that are detections"),
    "FN": ("every object not found", "whatever the cause"),
}
CURVES_AT = (0.5, 0.75)  # IoU
SCORE_BINS = 20
WORST = 12  # images
CLASSES_WITH_CURVES = 150


@dataclass
class Found:
    """What an evaluation of objects leaves.

    Attributes:
        judged: kind -> its evaluation, run.
        paths: image id of the evaluation -> its file.
        names: image id -> what it is called.
        lvis: whether classes that nobody looked for in an image do not count there.
    """

    judged: Mapping[str, hotcoco.COCOeval]
    paths: Mapping[int, Path]
    names: Mapping[int, str]
    lvis: bool = False


def numbers(found: Found, matched: Sequence[records.Objects]) -> dict[str, Any]:
    """Return all that the page shows, as JSON can hold it."""
    parts = {one.kind: _of_kind(found.judged[one.kind], one) for one in matched}
    finest = matched[-1]  # masks, where there are masks
    return {"kinds": parts, "worst": _worst(finest), "worst_by": finest.kind}


def sections(
    found: Found, matched: Sequence[records.Objects], told: Mapping[str, Any]
) -> list[tuple[str, page.Html]]:
    """Return headings and contents, from what `numbers` returned."""
    worst = worst_objects.drawn(
        found.judged[matched[-1].kind], found.paths, matched[-1], told["worst"], found.lvis
    )
    parts = [("Worst images", worst)]
    for kind, known in reversed(told["kinds"].items()):
        name = worst_objects.TITLES.get(kind, kind)
        content = [
            *(page.heading("Sizes and classes"), _tables(known)),
            *(page.heading("Precision and recall"), _curves(name, known)),
            *(page.heading("Kinds of errors"), _errors(known)),
            *(page.heading("Scores"), _scores(known)),
            *(page.heading("Confusion"), _confusion(known)),
        ]
        parts.append((name.capitalize(), page.join(content)))
    return parts


def _of_kind(judged: hotcoco.COCOeval, matched: records.Objects) -> dict[str, Any]:
    accumulated: Any = judged.eval
    precision = accumulated["precision"]  # (T, 101, K, A, M), -1 for what does not exist
    sure = accumulated["scores"]
    if precision.ndim == 4:  # LVIS's have no axis of limits
        precision, sure = precision[..., None], sure[..., None]
    at = {round(float(t), 2): i for i, t in enumerate(matched.thresholds)}
    curves: dict[str, Any] = {}
    per_class: dict[str, dict[str, Any]] = {}
    recalls = np.linspace(0, 1, precision.shape[1])
    places = {c: at[c] for c in CURVES_AT if c in at}
    _, ap = matched.numbers(np.ones((1, len(matched.images)), int))
    objects = np.bincount(
        matched.objects[0][:, 1], matched.objects[0][:, 2], minlength=len(matched.classes)
    )
    detections = np.bincount(matched.label, minlength=len(matched.classes))
    for k, name in enumerate(matched.classes):
        own = precision[:, :, k, 0, -1]
        if (own < 0).all():
            per_class[name] = {"objects": 0, "detections": int(detections[k])}
            continue
        first = own[0]
        f1 = 2 * first * recalls / np.maximum(first + recalls, 1e-12)
        best = int(f1.argmax())
        per_class[name] = {
            "objects": int(objects[k]),
            "detections": int(detections[k]),
            "AP": float(ap[0, k]),
            **{f"AP{round(100 * t)}": float(own[i].mean()) for t, i in places.items()},
            "F1": float(f1[best]),
            "score_of_F1": float(sure[0, best, k, 0, -1]) if f1[best] > 0 else None,
        }
        curves[name] = {str(t): own[i].tolist() for t, i in places.items()}
    mean = {
        str(t): np.mean([row[str(t)] for row in curves.values()], 0).tolist() if curves else []
        for t in places
    }
    calibration = judged.calibration(n_bins=SCORE_BINS)
    return {
        "sizes": _sizes(matched),
        "per_class": per_class,
        "f_scores": judged.f_scores(),
        "recalls": recalls.tolist(),
        "curves": {"mean": mean, "classes": curves},
        "errors": judged.tide_errors(),
        "calibration": {n: calibration[n] for n in ("ece", "mce", "num_detections", "bins")},
        "best_score": matched.best_score(),
        "confusion": _confusions(judged, matched.best_score()),
    }


def _sizes(matched: records.Objects) -> dict[str, Any]:
    row, _ = matched.numbers(np.ones((1, len(matched.images)), int))
    by_name = dict(zip(matched.names(), row[0].tolist(), strict=True))
    most = matched.most[-1]
    sizes = {}
    for area, rows in zip(matched.areas, matched.objects, strict=True):
        end = records.AREAS.get(area, f"_{area}")
        recall = f"AR{end}" if end else f"AR_{most}"
        sizes[area] = {
            "objects": int(rows[:, 2].sum()),
            "AP": _known(by_name[f"{matched.kind}_AP{end}"]),
            "AR": _known(by_name[f"{matched.kind}_{recall}"]),
        }
    return sizes


def _known(value: float) -> float | None:
    return None if value != value else value


def _confusions(judged: hotcoco.COCOeval, least: float) -> dict[str, Any]:
    """Count which class is taken for which; the last one is nothing, the background."""
    found = judged.confusion_matrix(min_score=least)
    counts = found["matrix"].astype(int)
    rows, columns = np.nonzero(counts)
    return {
        "classes": [*found["cat_names"], "(nothing)"],
        "least_score": least,
        "iou": found["iou_thr"],
        # Sparse: truth, found, how often.
        "counts": np.stack([rows, columns, counts[rows, columns]], 1).tolist(),
    }


def _worst(matched: records.Objects) -> list[dict[str, Any]]:
    """Choose the images of the lowest F1; of equal ones, those with more mistakes first."""
    counts, scores = matched.by_image(matched.best_score()), matched.image_scores()
    order = np.lexsort((-(counts[:, 1] + counts[:, 2]), scores))
    return [
        {
            "image": matched.images[i],
            "place": int(i),
            "F1": float(scores[i]),
            **dict(zip(("hits", "false", "missed"), counts[i].tolist(), strict=True)),
        }
        for i in order[:WORST]
        if counts[i, 1] + counts[i, 2]
    ]


def _tables(known: Mapping[str, Any]) -> page.Html:
    sizes = page.table(
        "By the area of the object: small below 32 x 32 pixels, large from 96 x 96 on",
        ["area", "objects", "AP", "AR"],
        [
            [area, row["objects"], page.number(row["AP"]), page.number(row["AR"])]
            for area, row in known["sizes"].items()
        ],
    )
    columns = ["AP", *(f"AP{round(100 * t)}" for t in CURVES_AT), "F1"]
    rows = sorted(known["per_class"].items(), key=lambda item: item[1].get("AP", 2.0))
    classes = page.table(
        "By class, the worst first. F1 is the best one at IoU 0.5, reached with detections of at "
        "least the score beside it",
        ["class", "objects", "detections", *columns, "its score"],
        [
            [name, row["objects"], row["detections"]]
            + [page.bar(row["AP"], page.number(row["AP"])) if "AP" in row else page.NOTHING]
            + [page.number(row.get(column)) for column in columns[1:]]
            + [page.number(row.get("score_of_F1"), 2)]
            for name, row in rows
        ],
    )
    return page.join([sizes, classes])


def _curves(title: str, known: Mapping[str, Any]) -> page.Html:
    recalls = np.array(known["recalls"])

    def drawn(name: str, by_iou: Mapping[str, Sequence[float]]) -> page.Html:
        lines = [charts.Curve(f"IoU {t}", recalls, np.array(y)) for t, y in by_iou.items()]
        return page.figure(
            charts.curves(
                f"precision over recall of {name}",
                charts.Axis("recall"),
                charts.Axis("precision"),
                lines,
            ),
            name,
            [line.name for line in lines],
        )

    curves = known["curves"]["classes"]
    if not curves:
        return page.paragraph("The data has no object to find.")
    order = sorted(curves, key=lambda name: known["per_class"][name]["AP"])
    few = order[:CLASSES_WITH_CURVES]
    rest = len(order) - len(few)
    each = [drawn(f"{n}: AP {page.number(known['per_class'][n]['AP'])}", curves[n]) for n in few]
    remark = f"The curves of {rest} better classes are in report.json."
    return page.join(
        [
            drawn(f"{title}, mean of {len(curves)} classes", known["curves"]["mean"]),
            page.folded("Each class, the lowest AP first", page.figures(*each)),
            page.paragraph(remark, soft=True) if rest else "",
        ]
    )


def _errors(known: Mapping[str, Any]) -> page.Html:
    errors = known["errors"]
    lost, counts = errors["delta_ap"], errors["counts"]
    highest = max(1e-9, *(lost[key] for key in ERRORS))
    return page.join(
        [
            page.paragraph(
                f"What AP at IoU {errors['pos_thr']:g}, now {page.number(errors['ap_base'])}, "
                "would gain if all errors of one kind were mended. The kinds do not add up. A "
                f"detection that overlaps no object by {errors['bg_thr']:g} is of the background. "
                "The kinds are those of TIDE (Bolya and others, 2020)."
            ),
            page.table(
                "Errors by kind",
                ["kind", "AP it costs", "how many", "what it is"],
                [
                    [
                        name,
                        page.bar(lost[key] / highest, page.number(lost[key])),
                        counts.get(key, page.NOTHING),
                        meaning,
                    ]
                    for key, (name, meaning) in ERRORS.items()
                ],
                kind="told",
            ),
        ]
    )


def _scores(known: Mapping[str, Any]) -> page.Html:
    bins, calibration = known["calibration"]["bins"], known["calibration"]
    edges = np.array([row["bin_lower"] for row in bins] + [bins[-1]["bin_upper"]])
    counts = np.array([row["count"] for row in bins], float)
    shares = np.array([row["avg_accuracy"] for row in bins])
    said = np.array([row["avg_confidence"] for row in bins])
    right = np.round(counts * shares)
    return page.join(
        [
            page.paragraph(
                f"Calibration error (ECE) {page.number(calibration['ece'])}: how far the scores of "
                f"{calibration['num_detections']} detections are from the share of them that is "
                "right at IoU 0.5, on average. Above the dashed line a model is too careful, below "
                "it too sure. Detections of at least "
                f"{page.number(known['best_score'], 2)} give the best F1 of all classes together."
            ),
            page.figures(
                page.figure(
                    charts.reliability(
                        "share of right detections by score", edges, shares, said, counts
                    ),
                    "Reliability",
                    ["share that is right", "mean score"],
                ),
                page.figure(
                    charts.stacks(
                        "number of detections by score",
                        charts.Axis("score"),
                        "detections",
                        edges,
                        np.stack([right, counts - right]),
                    ),
                    "Scores of right and false detections",
                    ["right", "false"],
                ),
            ),
        ]
    )


def _confusion(known: Mapping[str, Any]) -> page.Html:
    mixed = known["confusion"]
    names = mixed["classes"]
    counts = np.zeros((len(names), len(names)), int)
    for row, column, count in mixed["counts"]:
        counts[row, column] = count
    return confusion.table(
        names,
        counts,
        f"Percent of the objects of each class (row) that were found as each class (column), at "
        f"IoU {mixed['iou']:g} or more and a score of at least "
        f"{mixed['least_score']:.2f}; in the last row, of all false detections",
        last_is_nothing=True,
    )
