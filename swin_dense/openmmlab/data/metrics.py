"""COCO's twelve numbers and mIoU as mmdet and mmseg compute them, by class, under plain names."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from swin_dense.datasets import coco_layout
from swin_dense.registry import METRICS

# mmdet's name -> ours. It calls COCO's ten detections "AR@300"; we ask for COCO's own 1, 10, 100.
COCO_NUMBERS = {
    "mAP": "AP",
    "mAP_50": "AP50",
    "mAP_75": "AP75",
    "mAP_s": "AP_small",
    "mAP_m": "AP_medium",
    "mAP_l": "AP_large",
    "AR@100": "AR_1",
    "AR@300": "AR_10",
    "AR@1000": "AR_100",
    "AR_s@1000": "AR_small",
    "AR_m@1000": "AR_medium",
    "AR_l@1000": "AR_large",
}


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

    def __init__(self, ann_file: str | None = None, metric: Any = ("bbox", "segm"), **kwargs: Any):
        super().__init__(
            metric=list(metric) if not isinstance(metric, str) else metric,
            classwise=True,
            proposal_nums=(1, 10, 100),
            metric_items=list(COCO_NUMBERS),
            **kwargs,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells of its every step
            self._coco_api = NamedCOCO(ann_file) if ann_file else None
        self.per_class: dict[str, dict[str, float]] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """bbox_AP ... segm_AR_large, from 0 to 1; -1 where no object of that size exists."""
        asked = self.metrics
        numbers: dict[str, float] = {}
        self.per_class = {name: {} for name in self.dataset_meta["classes"]}
        try:
            for metric in asked:
                # One kind at a time: theirs writes the classes of both under the same names.
                self.metrics, self.cat_ids = [metric], None
                with contextlib.redirect_stdout(io.StringIO()):
                    found = super().compute_metrics(results)
                for theirs, ours in COCO_NUMBERS.items():
                    # Their answer is empty when not one object was found in the whole set.
                    numbers[f"{metric}_{ours}"] = found.get(f"{metric}_{theirs}", 0.0)
                for name, row in self.per_class.items():
                    row[f"{metric}_AP"] = float(found.get(f"{name}_precision", 0.0))
        finally:
            self.metrics = asked
        return numbers

    def results2json(self, results: Any, outfile_prefix: str) -> dict:
        """Theirs needs the ids in the order of the labels here, and from here on sorted.

        COCOeval sorts the ids it is given; reading its classes in another order would give
        every class the number of another one.
        """
        written = super().results2json(results, outfile_prefix)
        self.cat_ids = sorted(self.cat_ids or [])
        return written


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """mmseg's mIoU, mAcc and aAcc in percent, and the IoU and accuracy of each class."""

    default_prefix = "seg"

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.per_class: dict[str, dict[str, float]] = {}

    def total_area_to_metrics(self, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:  # type: ignore[override]
        table = super().total_area_to_metrics(*args, **kwargs)
        columns = {name: v for name, v in table.items() if np.ndim(v)}
        self.per_class = {
            name: {column: round(float(values[i]) * 100, 2) for column, values in columns.items()}
            for i, name in enumerate(self.dataset_meta["classes"])
        }
        return table
