"""Predict one image: the model and the test pipeline of a config, weights from a checkpoint."""

import functools
import warnings
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import INSTANCE_OFFSET, DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from swin_dense.datasets import colours
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import weights
from swin_dense.openmmlab.settings.classes import set_classes
from swin_dense.openmmlab.settings.config import building
from swin_dense.task import Task


class Predictor:
    """A model with its class names, ready to look at RGB arrays.

    Args:
        config: an experiment; its data need not be there.
        checkpoint: weights of the whole model, with the class names they were trained for.
        device: such as "cpu" or "cuda:0".

    Raises:
        InputError: the checkpoint does not fit the config, or names no classes.
    """

    def __init__(self, config: Config, checkpoint: str, device: str = "cpu"):
        loaded = weights.read(checkpoint)
        classes = weights.class_names(loaded)
        if classes is None:
            raise InputError(
                f"checkpoint: {checkpoint} does not say which classes it knows. "
                "Checkpoints of tools/train.py do; evaluate others with tools/test.py."
            )
        self.classes = classes
        self.segmentation = Task.of(config) is Task.SEMANTIC
        self.panoptic = Task.of(config) is Task.PANOPTIC
        self.things = weights.thing_names(loaded) or ()
        set_classes(config, classes, weights.thing_names(loaded))
        init_default_scope(config.default_scope)
        with building():
            model = revert_sync_batchnorm(MODELS.build(config.model))
            steps = [s for s in config.test_dataloader.dataset.pipeline if "Label" not in s["type"]]
            self.pipeline = Compose(steps)
        ledger = weights.load(
            model,
            loaded,
            weights.WHOLE,
            "Give the config the checkpoint was trained with.",
        )
        self.weights = {"file": ledger.source, "sha256": ledger.sha256, "layout": ledger.layout}
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray) -> Any:
        """The data sample mmdet or mmseg returns for an (H, W, 3) uint8 image."""
        try:
            item = self.pipeline({"img": rgb, "img_id": 0, "img_path": "", "seg_fields": []})
        except cv2.error as error:
            raise InputError(
                f"an image of {rgb.shape[1]}x{rgb.shape[0]} pixels cannot be resized to the "
                "config's scale without a side of 0 pixels."
            ) from error
        batch = {"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}
        with building():
            return self.model.test_step(batch)[0]

    def instances(self, sample: Any, threshold: float) -> list[dict[str, Any]]:
        """Boxes (x1, y1, x2, y2 in pixels), scores, names and COCO RLE masks, best first."""
        found = sample.pred_instances
        found = found[found.scores >= threshold].cpu()
        masks = (
            encode_mask_results(found.masks.numpy()) if "masks" in found else [None] * len(found)
        )
        rows = zip(
            found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), masks, strict=True
        )
        return [
            {
                "class": self.classes[label],
                "score": round(score, 4),
                "box": [round(side, 2) for side in box],
                **({"mask": {"size": m["size"], "counts": m["counts"].decode()}} if m else {}),
            }
            for label, score, box, m in sorted(rows, key=lambda row: -row[1])
        ]

    def segments(self, sample: Any, threshold: float) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """(H, W) with the id of the segment at each pixel, 0 for none; and a row for each id.

        Rows have id, class, isthing, score and area in pixels, the largest segment first.
        """
        found = sample.pred_panoptic_seg
        numbers, place = np.unique(found.sem_seg[0].cpu().numpy(), return_inverse=True)
        areas = np.bincount(place.ravel(), minlength=len(numbers))
        ids = np.zeros(len(numbers), np.int64)
        rows: list[dict[str, Any]] = []
        for i in np.argsort(-areas, kind="stable"):
            score = found.scores.get(int(numbers[i]))
            if score is None or score < threshold:
                continue
            name = self.classes[numbers[i] % INSTANCE_OFFSET]
            ids[i] = len(rows) + 1
            rows.append(
                {
                    "id": len(rows) + 1,
                    "class": name,
                    "isthing": name in self.things,
                    "score": round(score, 4),
                    "area": int(areas[i]),
                }
            )
        return ids[place].reshape(found.sem_seg.shape[-2:]), rows

    def label_map(self, sample: Any) -> np.ndarray:
        """(H, W) class index of each pixel."""
        return sample.pred_sem_seg.data[0].cpu().numpy()

    def draw_instances(
        self, rgb: np.ndarray, sample: Any, threshold: float, factor: int = 1
    ) -> np.ndarray:
        """The image with boxes, masks, names and scores over it, (H, W, 3) uint8.

        Args:
            rgb: the image the sample is of, enlarged `factor` times.
        """
        found = sample.pred_instances.cpu()
        found.bboxes = found.bboxes * factor
        if "masks" in found:
            found.masks = found.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        drawn = DetDataSample(pred_instances=found)
        with warnings.catch_warnings():  # objects may touch the border
            warnings.filterwarnings("ignore", message=".*out of bounds")
            self.visualizer.add_datasample(
                "demo", rgb, drawn, draw_gt=False, pred_score_thr=threshold
            )
        return self.visualizer.get_image()

    @functools.cached_property
    def visualizer(self) -> DetLocalVisualizer:
        visualizer = DetLocalVisualizer(alpha=0.5, line_width=2)
        palette = colours.palette(len(self.classes))
        visualizer.dataset_meta = {"classes": self.classes, "palette": palette}
        return visualizer
