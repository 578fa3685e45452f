"""What a model finds in an image and in its mirror image, made one result.

Boxes as mmdet's test-time augmentation joins them, by suppression within each class (that one drops
masks, and so is not called); label maps as mmseg's does, by the mean of probabilities.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from swin_dense.ops import batched_nms
from swin_dense.report.masks import Crop, Masks
from swin_dense.report.results import Instances

OVERLAP = 0.5  # intersection over union above which two objects of a class are one


def joined(one: Instances, mirror: Instances) -> Instances:
    """Join the objects of an image and those of its mirror image; the surest of two is kept."""
    width = one.size[1]
    left, top, right, bottom = mirror.boxes.T
    back = np.stack([width - right, top, width - left, bottom], axis=1)
    boxes = np.concatenate([one.boxes, back]).astype(np.float32)
    scores = np.concatenate([one.scores, mirror.scores])
    labels = np.concatenate([one.labels, mirror.labels])
    masks = None
    if one.masks is not None and mirror.masks is not None:
        turned = [_turned(crop, width) for crop in mirror.masks.crops]
        masks = Masks(one.masks.size, [*one.masks.crops, *turned])
    both = replace(one, boxes=boxes, scores=scores, labels=labels, masks=masks)
    tensors = [torch.from_numpy(x) for x in (boxes, scores, labels)]
    kept = batched_nms(tensors[0], tensors[1], tensors[2], OVERLAP)
    return both.some(kept.numpy()[: max(len(one), len(mirror))])


def label_map(sample: Any, mirror: Any, threshold: float | None) -> np.ndarray:
    """Return the class of each pixel (H, W) by the mean of both probabilities.

    Args:
        sample, mirror: mmseg's data samples, with logits.
        threshold: of a head with one channel, above which a pixel is of class 1.
    """
    one, other = sample.seg_logits.data.float(), mirror.seg_logits.data.float().flip(-1)
    if len(one) == 1:
        found = (one.sigmoid() + other.sigmoid())[0] / 2 > threshold
    else:
        found = (one.softmax(0) + other.softmax(0)).argmax(0)
    return found.long().cpu().numpy()


def _turned(crop: Crop, width: int) -> Crop:
    left = width - crop.left - crop.pixels.shape[1]
    return Crop(crop.top, left, crop.pixels[:, ::-1])
