"""Compute mIoU as mmseg does, for each class, too; and what tables call the numbers.

The names are theirs: "coco/bbox_mAP" and "mIoU" are what `save_best` asks for.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmseg.evaluation import IoUMetric as MMSegIoUMetric
from PIL import Image

from swin_dense.datasets import coco_file, coco_layout
from swin_dense.errors import InputError
from swin_dense.evaluation import agreement
from swin_dense.evaluation.detections import without_slivers
from swin_dense.registry import METRICS

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

    def __init__(self, annotation_file: str | None = None):
        super().__init__()
        if annotation_file:
            self.dataset = coco_file.open_coco(annotation_file).as_dict()
            self.createIndex()

    def createIndex(self) -> None:
        for number, row in enumerate(self.dataset.get("annotations", []), start=1):
            row["id"] = number
            row.setdefault("iscrowd", 0)
            if "segmentation" in row:
                row["segmentation"] = without_slivers(row["segmentation"])
        if self.dataset:
            self.dataset.setdefault("info", {})  # type: ignore[arg-type]
        super().createIndex()

    def get_cat_ids(
        self, cat_names: Sequence[str] = (), sup_names: Any = (), cat_ids: Any = ()
    ) -> list[int]:
        if not len(cat_names):
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        found = {id: category["name"] for id, category in self.cats.items()}
        known = coco_layout.present_classes(cat_names, found)
        free = itertools.count(max((i for i in found if isinstance(i, int)), default=0) + 1)
        # A class that the file does not list has an id of its own, of which there are no objects.
        for name in cat_names:
            if name not in known:
                known[name] = next(free)
                self.cats[known[name]] = {"id": known[name], "name": name}
        return [known[name] for name in cat_names]


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """mIoU, mAcc and aAcc in percent as mmseg defines them, and the numbers of each class.

    Pixels are counted when an image was predicted, as a table of true and found classes, so that
    memory does not grow with the images' sizes. Sums are whole numbers and ratios float64.

    Args:
        iou_metrics: of "mIoU", "mDice" and "mFscore", one or several.
        format_only: write the found maps into `output_dir`, and judge nothing.

    After `compute_metrics`, `confusion` (K, K) counts pixels by true (rows) and found class,
    `per_image` lists (path, intersection, found area, true area), each (K,), and `per_class` holds
    the numbers of each class.
    """

    def __init__(
        self,
        iou_metrics: str | Sequence[str] = ("mIoU",),
        ignore_index: int = 255,
        nan_to_num: int | None = None,
        beta: float = 1,
        output_dir: str | None = None,
        format_only: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        kinds = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        if not kinds or not set(kinds) <= IOU_NUMBERS.keys():
            raise InputError(
                f"IoUMetric: iou_metrics are some of {', '.join(IOU_NUMBERS)}, not {iou_metrics!r}."
            )
        if format_only and not output_dir:
            raise InputError(
                "IoUMetric: format_only=True writes label maps: state output_dir, their folder."
            )
        super().__init__(
            ignore_index=ignore_index,
            iou_metrics=kinds,
            nan_to_num=nan_to_num,
            beta=beta,
            collect_device=collect_device,
            output_dir=output_dir,
            format_only=format_only,
            prefix=prefix,
        )
        self.format_only: bool = format_only
        self.per_class: dict[str, dict[str, float]] = {}
        self.confusion = np.zeros((0, 0), np.int64)
        self.per_image: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []

    @staticmethod
    def names(config: Mapping[str, Any]) -> list[str]:
        """Return the names of the numbers that a config of this metric gives."""
        asked = config.get("iou_metrics", ["mIoU"])
        found = ["aAcc"]
        for metric in [asked] if isinstance(asked, str) else asked:
            found += IOU_NUMBERS.get(metric, ())
        return list(dict.fromkeys(found))

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count each image's pixels by true and found class; write its map if that is asked."""
        count = len(self.dataset_meta["classes"])
        for sample in data_samples:
            found = sample["pred_sem_seg"]["data"][0].cpu().numpy()
            if self.output_dir is not None:
                written = found + bool(sample.get("reduce_zero_label"))  # 0 is no class there
                kind = np.uint8 if written.max(initial=0) < 256 else np.uint16
                name = Path(sample["img_path"]).with_suffix(".png").name
                Image.fromarray(written.astype(kind)).save(Path(self.output_dir) / name)
            if self.format_only:
                continue
            true = sample["gt_sem_seg"]["data"][0].cpu().numpy()
            path = str(sample.get("img_path", len(self.results)))
            pairs = agreement.confusion(true, found, count, self.ignore_index)
            there = np.flatnonzero(pairs)
            self.results.append((path, there, pairs.ravel()[there]))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return aAcc, mIoU and the others in percent; a number of no class at all is absent."""
        names = self.dataset_meta["classes"]
        count = len(names)
        self.confusion = np.zeros((count, count), np.int64)
        self.per_image, self.per_class = [], {}
        if self.format_only:
            return {}
        # A sampler of several processes repeats images to give each as many.
        for path, place, pixels in {row[0]: row for row in results}.values():
            table = np.zeros((count, count), np.int64)
            table.ravel()[place] = pixels
            self.confusion += table
            self.per_image.append((path, table.diagonal(), table.sum(0), table.sum(1)))
        rates = agreement.rates(self.confusion, self.beta)
        if self.nan_to_num is not None:
            rates = {k: np.nan_to_num(v, nan=self.nan_to_num) for k, v in rates.items()}
        asked = [n for kind in self.metrics for n in IOU_NUMBERS[kind]]
        columns = {n: 100 * rates[n.removeprefix("m")] for n in dict.fromkeys(asked)}
        for i, name in enumerate(names):
            self.per_class[name] = {n.removeprefix("m"): float(v[i]) for n, v in columns.items()}
        total = self.confusion.sum()
        numbers = {"aAcc": float(100 * self.confusion.trace() / total)} if total else {}
        for name, values in columns.items():
            if not np.isnan(values).all():
                numbers[name] = float(np.nanmean(values))
        return numbers
