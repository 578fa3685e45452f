"""Compute COCO's twelve numbers and mIoU as mmdet and mmseg do, for each class, too.

The names are theirs: "coco/bbox_mAP" and "mIoU" are what `save_best` asks for.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from swin_dense.datasets import coco_layout
from swin_dense.errors import InputError
from swin_dense.registry import METRICS

# What mmdet's evaluation calls a number -> what it is. With COCO's own 1, 10 and 100 detections
# asked for, it still says "AR@300" for ten; "AR@100" for one.
COCO_NUMBERS = {
    "mAP": "mAP",
    "mAP_50": "mAP_50",
    "mAP_75": "mAP_75",
    "mAP_s": "mAP_s",
    "mAP_m": "mAP_m",
    "mAP_l": "mAP_l",
    "AR@100": "AR@1",
    "AR@300": "AR@10",
    "AR@1000": "AR@100",
    "AR_s@1000": "AR_s@100",
    "AR_m@1000": "AR_m@100",
    "AR_l@1000": "AR_l@100",
}
KINDS = ("bbox", "segm")
IOU_NUMBERS = {
    "mIoU": ("mIoU", "mAcc"),
    "mDice": ("mDice", "mAcc"),
    "mFscore": ("mFscore", "mPrecision", "mRecall"),
}
# The name of a number in logs -> in our tables and in metrics.json.
TABLE_NAMES = {
    "mAP": "AP",
    "mAP_50": "AP50",
    "mAP_75": "AP75",
    "mAP_s": "AP_small",
    "mAP_m": "AP_medium",
    "mAP_l": "AP_large",
    "AR@1": "AR_1",
    "AR@10": "AR_10",
    "AR@100": "AR_100",
    "AR_s@100": "AR_small",
    "AR_m@100": "AR_medium",
    "AR_l@100": "AR_large",
}


def table_name(name: str) -> str:
    """Return what tables call a number of a log: "coco/bbox_mAP_s" -> "bbox_AP_small"."""
    kind, separator, number = name.rpartition("/")[2].partition("_")
    if number in TABLE_NAMES:
        return f"{kind}{separator}{TABLE_NAMES[number]}"
    return name.rpartition("/")[2]


class NamedCOCO(COCO):
    """COCO annotations whose categories are asked for by name, in the order asked for.

    pycocotools returns ids in file order whatever the order of the names, so that a config with
    another order trains and draws the wrong names. Annotations are numbered anew: its evaluation
    takes number 0 for "no match", and stumbles over text, a missing iscrowd or a missing info.
    """

    def createIndex(self) -> None:
        for number, row in enumerate(self.dataset.get("annotations", []), start=1):
            row["id"] = number
            row.setdefault("iscrowd", 0)
        if self.dataset:
            self.dataset.setdefault("info", {})
        super().createIndex()

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Any = (), cat_ids: Any = ()
    ) -> list[int]:
        if not len(cat_names):
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        found = {id: category["name"] for id, category in self.cats.items()}
        return list(coco_layout.match_classes(cat_names, found, subset=True).values())


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's COCO evaluation with all twelve numbers and the AP of each class.

    Args:
        ann_file: annotations of the evaluated split.
        metric: "bbox", "segm" or both.
    """

    metrics: list[str]
    cat_ids: list[int] | None

    def __init__(self, ann_file: str | None = None, metric: Any = KINDS, **kwargs: Any):
        kinds = [metric] if isinstance(metric, str) else list(metric)
        if not kinds or not set(kinds) <= set(KINDS):
            raise InputError(
                f"CocoMetric: metric is 'bbox', 'segm' or both in a list, not {metric!r}. For "
                "others, name mmdet's CocoMetric in the config."
            )
        super().__init__(
            metric=kinds,
            classwise=True,
            proposal_nums=(1, 10, 100),
            metric_items=list(COCO_NUMBERS),
            **kwargs,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of its every step
            self._coco_api = NamedCOCO(ann_file) if ann_file else None
        self.per_class: dict[str, dict[str, float]] = {}

    @staticmethod
    def names(config: Mapping[str, Any]) -> list[str]:
        """Return the names of the numbers, without prefix, that a config of this metric gives."""
        metric = config.get("metric", KINDS)
        kinds = [metric] if isinstance(metric, str) else metric
        return [f"{kind}_{number}" for kind in kinds for number in TABLE_NAMES]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return bbox_mAP to segm_AR_l@100, from 0 to 1; -1 where no object has that size."""
        asked = self.metrics
        numbers: dict[str, float] = {}
        self.per_class = {name: {} for name in self.dataset_meta["classes"]}
        try:
            for metric in asked:
                # One kind at a time: mmdet's writes the classes of both under the same names.
                self.metrics, self.cat_ids = [metric], None
                with contextlib.redirect_stdout(io.StringIO()):
                    found = super().compute_metrics(results)
                for called, name in COCO_NUMBERS.items():
                    # The answer is empty when not one object was found in the whole set.
                    numbers[f"{metric}_{name}"] = found.get(f"{metric}_{called}", 0.0)
                for name, row in self.per_class.items():
                    row[f"{metric}_AP"] = float(found.get(f"{name}_precision", 0.0))
        finally:
            self.metrics = asked
        return numbers

    def results2json(self, results: Any, outfile_prefix: str) -> dict:
        """Write the results with the ids in the order of the labels; from here on they are sorted.

        COCOeval sorts the ids it is given; reading its classes in another order would give
        every class the number of another one.
        """
        written = super().results2json(results, outfile_prefix)
        self.cat_ids = sorted(self.cat_ids or [])
        return written


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """mmseg's mIoU, mAcc and aAcc in percent, and the IoU and accuracy of each class."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.per_class: dict[str, dict[str, float]] = {}

    @staticmethod
    def names(config: Mapping[str, Any]) -> list[str]:
        """Return the names of the numbers that a config of this metric gives."""
        asked = config.get("iou_metrics", ["mIoU"])
        found = ["aAcc"]
        for metric in [asked] if isinstance(asked, str) else asked:
            found += IOU_NUMBERS.get(metric, ())
        return found

    def total_area_to_metrics(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:  # type: ignore[override]
        table = super().total_area_to_metrics(*args, **kwargs)
        columns = {name: v for name, v in table.items() if np.ndim(v)}
        self.per_class = {
            name: {column: round(float(values[i]) * 100, 2) for column, values in columns.items()}
            for i, name in enumerate(self.dataset_meta["classes"])
        }
        return table
