"""A file of a model in the place of the model: the same batches in, the same samples out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from swin_dense.errors import InputError
from swin_dense.export.sessions import Session

LEAST = 33  # sides of an image in pixels; smaller ones have maps of one cell or less


def of_one_size(inputs: Sequence[Tensor], samples: Sequence[Any]) -> list[list[int]]:
    """Return the places of images that have one size, before and after they were resized."""
    groups: dict[Any, list[int]] = {}
    for place, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        groups.setdefault((image.shape, tuple(sample.ori_shape[:2])), []).append(place)
    return list(groups.values())


class FileModel(nn.Module):
    """What a session finds, as mmdet's and mmseg's models give it in a test.

    Attributes:
        session: that computes.
    """

    def __init__(self, session: Session, config: Config) -> None:
        """Prepare images as the config says; the file itself extends them.

        Args:
            config: that the model was trained with, with its classes.
        """
        super().__init__()
        self.session = session
        given = dict(config.model.data_preprocessor)
        given.pop("batch_augments", None)
        if "pad_size_divisor" in given:
            given["pad_size_divisor"] = 1
        if "test_cfg" in given:
            given["test_cfg"] = None
        with MODELS.switch_scope_and_registry(config.default_scope) as registry:
            self.data_preprocessor = registry.build(given)
        rule = config.model.get("test_cfg") or {}
        self._binary = (rule.get("rcnn") or {}).get("mask_thr_binary", 0.5)
        head = config.model.get("panoptic_head") or {}
        self._things = head.get("num_things_classes", 0)
        self._classes = self._things + head.get("num_stuff_classes", 0)

    @torch.inference_mode()
    def test_step(self, data: Mapping[str, Any]) -> list[Any]:
        """Return a sample for each image; images of one size are computed at once."""
        inputs, samples = list(data["inputs"]), list(data["data_samples"])
        for places in of_one_size(inputs, samples):
            height, width = inputs[places[0]].shape[1:]
            size = tuple(samples[places[0]].ori_shape[:2])
            if min(height, width) < LEAST:
                raise InputError(
                    f"an image of {width}x{height} pixels, as the model sees it, is smaller than "
                    f"the {LEAST}x{LEAST} that this file takes. Enlarge it, or ask for a larger "
                    "image scale."
                )
            some = {
                "inputs": [inputs[i] for i in places],
                "data_samples": [samples[i] for i in places],
            }
            ready = self.data_preprocessor(some, False)["inputs"].contiguous().numpy()
            found = self.session(ready, size)
            for row, place in enumerate(places):
                one = {name: torch.from_numpy(values[row]) for name, values in found.items()}
                self._tell(samples[place], one, size)
        return samples

    def _tell(self, sample: Any, found: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        if "label_map" in found:
            sample.pred_sem_seg = PixelData(data=found["label_map"][None])
        elif "segment_map" in found:
            sample.pred_panoptic_seg = self._segments(found)
        else:
            sample.pred_instances = self._instances(found, size)

    def _instances(self, found: Mapping[str, Tensor], size: tuple[int, int]) -> InstanceData:
        there = found["labels"] >= 0
        rows = InstanceData(
            bboxes=found["boxes"][there],
            scores=found["scores"][there],
            labels=found["labels"][there],
        )
        if "masks" in found:
            rows.masks = found["masks"][there].bool()
        elif "box_masks" in found:
            rows.masks = self._pasted(found["box_masks"][there], rows.bboxes, size)
        return rows

    def _pasted(self, masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        whole = torch.zeros((len(masks), *size), dtype=torch.bool)
        for i in range(len(masks)):  # of each box its own part of the image alone
            part, place = _do_paste_mask(masks[i : i + 1, None], boxes[i : i + 1], *size)
            whole[(i, *place)] = part[0] >= self._binary
        return whole

    def _segments(self, found: Mapping[str, Tensor]) -> PixelData:
        """Return mmdet's map: label + 1000 * number of the thing; and the score of each segment."""
        ids, labels, scores = found["segment_map"], found["labels"], found["scores"]
        shown = np.unique(ids.numpy())
        whole = torch.full(ids.shape, self._classes, dtype=torch.int32)
        number, of_segment = 0, dict[int, float]()
        for query in shown[shown < len(labels)].tolist():
            label = int(labels[query])
            number += label < self._things
            segment = label + (INSTANCE_OFFSET * number if label < self._things else 0)
            whole[ids == query] = segment
            of_segment[segment] = max(of_segment.get(segment, 0.0), float(scores[query]))
        segments = PixelData(sem_seg=whole[None])
        segments.set_metainfo({"scores": of_segment})
        return segments
