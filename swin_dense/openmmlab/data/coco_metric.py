"""Judge boxes, masks and proposals as COCO and LVIS do, or write them for a test server."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hotcoco
import msgspec
import numpy as np
import torch
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.evaluator import BaseMetric

from swin_dense.errors import InputError
from swin_dense.evaluation import detections
from swin_dense.evaluation.detections import Found, Judged, Truth
from swin_dense.openmmlab.data.metrics import NamedCOCO, table_name
from swin_dense.registry import METRICS

BESIDE = ("bbox", "segm")


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """COCO's twelve numbers of boxes and masks, each class's too, in full precision.

    A number that no object of the truth could give, as that of small objects where there are none,
    is absent; where there are objects and nothing is found it is 0.

    Args:
        ann_file: annotations of the evaluated split; the commands fill it in.
        metric: kinds, one or several of "bbox", "segm", "boundary" (of masks) and "proposal".
        back_end: "hotcoco", "pycocotools" or "ultrafast-pycocotools"; the numbers are the same.
        max_dets: limits of detections per image, rising; None for the usual ones of each kind.
        iou_thrs: thresholds of IoU; None for 0.5, 0.55 to 0.95.
        lvis: whether the annotations are LVIS's: rare, common and frequent classes, and no penalty
            for classes that nobody looked for in an image.
        format_only: write what was found to files of COCO's result format, and judge nothing.
        outfile_prefix: of these files: PREFIX.bbox.json and PREFIX.segm.json.

    After `compute_metrics`, `judged` holds a COCOeval for each kind (with `details`, which takes
    more memory, of any number of masks), `per_class` the numbers of each class and `detections`
    what was found.
    """

    default_prefix = "coco"

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | Sequence[str] = BESIDE,
        back_end: str = "hotcoco",
        max_dets: Sequence[int] | None = None,
        iou_thrs: Sequence[float] | None = None,
        lvis: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.kinds = _kinds(metric)
        detections.require_back_end(back_end)
        if max_dets is not None and (
            not list(max_dets) or sorted(set(max_dets)) != list(max_dets) or min(max_dets) < 1
        ):
            raise InputError(
                f"CocoMetric: max_dets are rising whole numbers from 1, not {max_dets!r}. As in "
                "(1, 10, 100)."
            )
        if iou_thrs is not None and not all(0 < value <= 1 for value in iou_thrs):
            raise InputError(f"CocoMetric: iou_thrs lie between 0 and 1, got {iou_thrs!r}.")
        if lvis and (back_end != "hotcoco" or not set(self.kinds) <= set(BESIDE)):
            raise InputError(
                "CocoMetric: lvis=True judges 'bbox' and 'segm' by back_end='hotcoco', not "
                f"{list(self.kinds)} by {back_end!r}."
            )
        if format_only and not outfile_prefix:
            raise InputError(
                "CocoMetric: format_only=True writes files, and outfile_prefix says where. As in "
                "outfile_prefix='results/test' for results/test.bbox.json."
            )
        self.ann_file, self.format_only, self.outfile_prefix = ann_file, format_only, outfile_prefix
        self.back_end, self.lvis = back_end, lvis
        self.details = False  # set by who asks `judged` for more
        self.max_dets, self.iou_thrs = max_dets, iou_thrs
        self._truth: Truth | None = None
        self.per_class: dict[str, dict[str, float]] = {}
        self.judged: dict[str, Any] = {}
        self.detections: list[Found] = []

    @staticmethod
    def names(config: Mapping[str, Any]) -> list[str]:
        """Return the names of the numbers, without prefix, that a config of this metric gives."""
        found = []
        for kind in _kinds(config.get("metric", BESIDE)):
            lvis = config.get("lvis", False)
            most = tuple(config.get("max_dets") or detections.most_of(kind, lvis))
            values = config.get("iou_thrs")
            thresholds = np.asarray(detections.THRESHOLDS if values is None else values)
            curves = np.ones((len(thresholds), 1, 3, len(detections.AREAS), len(most)))
            frequencies = tuple(detections.FREQUENCIES) if lvis else ()
            full = Judged(kind, curves, curves[:, 0], thresholds, most, None, frequencies)
            found += [f"{kind}_{name}" for name in full.numbers()]
        return found

    @property
    def truth(self) -> Truth:
        """Return the objects of the annotation file, read when they are first asked for."""
        if self._truth is None:
            if not self.ann_file:
                raise InputError(
                    "CocoMetric: ann_file names the annotations of the split that is judged; it is "
                    "missing. State it in the evaluator."
                )
            self._truth = Truth.read(self.ann_file, self.dataset_meta["classes"], self.lvis)
        return self._truth

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what was found in each image, masks as run lengths."""
        for sample in data_samples:
            found = sample["pred_instances"]
            place = self.truth.place.get(sample["img_id"])
            if place is None:
                raise InputError(
                    f"CocoMetric: {self.ann_file} has no image of id {sample['img_id']!r}, which "
                    "was predicted. ann_file and the data loader are of different splits: state "
                    "the same file in both."
                )
            masks = found.get("masks")
            counts, areas = (None, None) if masks is None else _run_lengths(masks)
            self.results.append(
                Found(
                    place,
                    _array(found["bboxes"]),
                    _array(found["scores"]),
                    _array(found["labels"]),
                    counts,
                    areas,
                    _array(found["mask_scores"]) if "mask_scores" in found else None,
                )
            )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return bbox_mAP to segm_AR_l@100, from 0 to 1; none with format_only."""
        # A sampler of several processes repeats images to give each as many.
        self.detections = list({one.place: one for one in results}.values())
        if self.outfile_prefix:
            self._write()
        numbers: dict[str, float] = {}
        self.per_class = {} if self.format_only else {name: {} for name in self.truth.names}
        self.judged = {}
        for kind in () if self.format_only else self.kinds:
            judged = detections.judge(
                self.truth,
                self.detections,
                kind,
                self.back_end,
                self.max_dets,
                self.iou_thrs,
                self.lvis,
                self.details,
            )
            if judged.evaluator is not None:
                self.judged[kind] = judged.evaluator
            for name, value in judged.numbers().items():
                numbers[f"{kind}_{name}"] = value
            for label, row in enumerate(self.per_class.values()) if kind != "proposal" else ():
                for name, value in judged.numbers(label).items():
                    row[table_name(f"{kind}_{name}")] = value
        return numbers

    def _write(self) -> None:
        """Write a file for each kind, in COCO's result format, with the ids of the file."""
        for kind in self.kinds:
            rows: list[dict[str, Any]] = []
            for one in self.detections:
                masked = kind in ("segm", "boundary") and one.masks is not None
                scores = one.mask_scores if masked and one.mask_scores is not None else one.scores
                for i, (box, score, label) in enumerate(
                    zip(one.boxes.tolist(), scores.tolist(), one.labels.tolist(), strict=True)
                ):
                    left, top, right, bottom = box
                    row = {
                        "image_id": self.truth.ids[one.place],
                        "category_id": self.truth.category_ids[label],
                        "bbox": [left, top, right - left, bottom - top],
                        "score": score,
                    }
                    if masked and one.masks:
                        size = self.truth.sizes[one.place].tolist()
                        row["segmentation"] = {"size": size, "counts": one.masks[i].decode()}
                    rows.append(row)
            path = Path(f"{self.outfile_prefix}.{kind}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.encode(rows))


@METRICS.register_module()
class RepairedCocoMetric(MMDetCocoMetric):
    """mmdet's own CocoMetric over annotations that lack what pycocotools asks for without need.

    A file without `info`, or an object without `iscrowd`, ends its evaluation in a KeyError, after
    the training. The runner puts this in its place.
    """

    def __init__(self, ann_file: str | None = None, **kwargs: Any):
        super().__init__(ann_file=None, **kwargs)
        self._coco_api = NamedCOCO(ann_file) if ann_file else None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return mmdet's numbers; pycocotools' table of them is not printed, the log has them."""
        with contextlib.redirect_stdout(io.StringIO()):
            return super().compute_metrics(results)


def _kinds(metric: Any) -> tuple[str, ...]:
    kinds = [metric] if isinstance(metric, str) else list(metric)
    wrong = [kind for kind in kinds if kind not in detections.KINDS]
    if kinds and not wrong:
        return tuple(dict.fromkeys(kinds))
    raise InputError(
        f"CocoMetric: metric is one or several of {', '.join(detections.KINDS)}, not {metric!r}. "
        "For others, name mmdet's CocoMetric in the config."
    )


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _run_lengths(masks: Any) -> tuple[list[bytes], np.ndarray]:
    """Return the counts of the masks of an image, and how many pixels each has.

    Args:
        masks: (n, h, w) of truth values, or run lengths already.
    """
    codes: Any
    if isinstance(masks, list | tuple):
        codes = [dict(mask) for mask in masks]
    else:
        array = _array(masks).astype(np.uint8)
        codes = hotcoco.mask.encode(np.asfortranarray(array.transpose(1, 2, 0)))
    counts = [c if isinstance(c := mask["counts"], bytes) else c.encode() for mask in codes]
    areas = hotcoco.mask.area(codes) if codes else ()
    return counts, np.asarray(areas, np.float64)
