"""Predict one image: the model and the test pipeline of a config, weights from a checkpoint."""

import functools
import warnings
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from swin_dense.checkpoints import files
from swin_dense.datasets import colours
from swin_dense.errors import InputError
from swin_dense.openmmlab import data, weights
from swin_dense.openmmlab.config import building


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
        loaded = files.read(checkpoint)
        classes = weights.class_names(loaded)
        if classes is None:
            raise InputError(
                f"checkpoint: {checkpoint} does not say which classes it knows. "
                "Checkpoints of tools/train.py do; evaluate others with tools/test.py."
            )
        self.classes = classes
        self.segmentation = data.is_segmentation(config)
        data.set_classes(config, classes)
        init_default_scope(config.default_scope)
        with building():
            model = revert_sync_batchnorm(MODELS.build(config.model))
            steps = [s for s in config.test_dataloader.dataset.pipeline if "Label" not in s["type"]]
            self.pipeline = Compose(steps)
        weights.lay_in(
            model,
            loaded["state_dict"],
            checkpoint,
            weights.WHOLE,
            "Give the config the checkpoint was trained with.",
        )
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
