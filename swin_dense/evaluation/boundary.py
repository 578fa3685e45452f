"""Boundary IoU (Cheng et al., arXiv 2103.16562): IoU of what lies near the edge of a mask.

A large mask can miss its whole outline by several pixels and keep an IoU above 0.9. The boundary of
a mask is its part within 2 % of the image's diagonal from its edge; masks are then as alike as the
smaller of their IoU and the IoU of their boundaries.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.cocoeval import COCOeval

SHARE = 0.02  # of the diagonal


def boundary(mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask (h, w) within reach of its edge; what leaves the image has one."""
    height, width = mask.shape
    reach = max(1, round(SHARE * float(np.hypot(height, width))))
    framed = np.pad(mask.astype(np.uint8), 1)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=reach)[1:-1, 1:-1]
    return mask.astype(np.uint8) - inner


def evaluator(truth: Any, found: Any) -> COCOeval:
    """Return a COCOeval of masks whose IoU is the boundary's where that is smaller."""
    return _BoundaryEval(truth, found, "segm")


class _BoundaryEval(COCOeval):
    def computeIoU(self, image: int, category: int) -> Any:
        ious = super().computeIoU(image, category)
        if not len(ious):
            return ious
        key = (image, category)
        true, found = self._gts[key], self._dts[key]
        if not self.params.useCats:
            true = [row for k in self.params.catIds for row in self._gts[image, k]]
            found = [row for k in self.params.catIds for row in self._dts[image, k]]
        order = np.argsort([-row["score"] for row in found], kind="mergesort")
        found = [found[i] for i in order[: self.params.maxDets[-1]]]
        edges = run_lengths.iou(
            [self._edge(row) for row in found],
            [self._edge(row) for row in true],
            [int(row["iscrowd"]) for row in true],
        )
        return np.minimum(ious, edges)

    @staticmethod
    def _edge(row: dict) -> dict:
        """Return the boundary of a row's mask as run lengths, computed once."""
        if "boundary" not in row:
            mask = run_lengths.decode(row["segmentation"])
            row["boundary"] = run_lengths.encode(np.asfortranarray(boundary(mask)))
        return row["boundary"]
