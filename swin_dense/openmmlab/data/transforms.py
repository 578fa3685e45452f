"""The first steps of a pipeline: files to arrays, by our readers, in the keys mm pipelines use."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from swin_dense.datasets import coco_panoptic, images, instaboost, label_maps
from swin_dense.errors import InputError
from swin_dense.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read `img_path` as `img`: (H, W, 3) uint8 in blue-green-red order, upright.

    Grey, palette, transparent, 16-bit and EXIF-rotated files come out as a viewer shows them;
    a damaged file stops the run with its name. An `img` already there (RGB) is taken instead.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        rgb = results["img"] if "img" in results else images.read_rgb(results["img_path"])
        stated = (results.get("height"), results.get("width"))
        if None not in stated and stated != rgb.shape[:2]:
            raise InputError(
                f"{results.get('img_path')}: the annotations say {stated[1]}x{stated[0]} pixels, "
                f"the image has {rgb.shape[1]}x{rgb.shape[0]} (width x height, upright). Boxes and "
                "masks would lie elsewhere; correct the sizes, or remove an orientation tag (EXIF) "
                "that the annotations were made without."
            )
        results["img"] = np.ascontiguousarray(rgb[..., ::-1])
        results["img_shape"] = results["ori_shape"] = rgb.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Read `seg_map_path` as `gt_seg_map` (H, W): class index, or 255 where nothing is judged.

    The data set's label table says which raw value is which class; any other value is an error.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results["seg_map_path"]
        raw = label_maps.read_label_map(path)
        label_maps.require_same_size(
            results.get("img_path", path), results.get("ori_shape", raw.shape), path, raw.shape
        )
        results["gt_seg_map"] = results["label_table"].lookup(raw, path)
        results.setdefault("seg_fields", []).append("gt_seg_map")  # mmdet's sets have no list
        return results


@TRANSFORMS.register_module()
class LoadSegments(BaseTransform):
    """Read the panoptic PNG `seg_map_path`: a mask for each thing, a label for each pixel.

    Gives `gt_masks`, `gt_bboxes` and `gt_bboxes_labels` of the things and `gt_seg_map` (H, W) of
    all labels, 255 where the pixel is void, of a crowd or of a class that was not chosen.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        path, segments = results["seg_map_path"], {s["id"]: s for s in results["segments"]}
        ids = coco_panoptic.read_segments(path, segments)
        label_maps.require_same_size(results["img_path"], results["ori_shape"], path, ids.shape)
        numbers, place = np.unique(ids, return_inverse=True)
        place = place.reshape(ids.shape)
        label_at = np.full(len(numbers), label_maps.IGNORE, np.uint8)
        masks, labels = [], []
        for i, number in enumerate(numbers.tolist()):
            segment = segments.get(number)
            if segment is None or segment["label"] is None or segment["iscrowd"]:
                continue
            label_at[i] = segment["label"]
            if segment["isthing"]:
                masks.append((place == i).astype(np.uint8))
                labels.append(segment["label"])
        results["gt_masks"] = BitmapMasks(masks, *ids.shape)
        results["gt_bboxes"] = results["gt_masks"].get_bboxes(HorizontalBoxes)
        results["gt_bboxes_labels"] = np.array(labels, np.int64)
        results["gt_ignore_flags"] = np.zeros(len(labels), bool)
        results["gt_seg_map"] = label_at[place]
        return results


@TRANSFORMS.register_module()
class InstaBoost(BaseTransform):
    """Move the objects of an image a little, and fill what they leave (arXiv 1908.07801).

    Comes after the loading of boxes and masks and, if there is one, of the label map. What is
    ignored, crowds above all, stays where it is. Boxes become the extents of masks; an object
    that another one covers as a whole is left out.

    Args:
        prob: share of the images that are changed.
        shift: how far at most, as a share of an object's width or height.
        zoom: the smallest and the largest factor of its size; scales are sizes in pixels here.
        turn: degrees at most, either way.
    """

    def __init__(
        self,
        prob: float = 0.5,
        shift: float = instaboost.Limits.shift,
        zoom: tuple[float, float] = instaboost.Limits.zoom,
        turn: float = instaboost.Limits.turn,
    ):
        pair = tuple(zoom) if isinstance(zoom, list | tuple) else ()
        known = len(pair) == 2 and all(
            isinstance(x, int | float) for x in (prob, shift, turn, *pair)
        )
        if not (known and 0 <= prob <= 1 and min(shift, turn) >= 0 and 0 < pair[0] <= pair[1]):
            raise InputError(
                "InstaBoost: prob is a share from 0 to 1, shift and turn are at least 0, zoom is "
                f"(smallest, largest) above 0; got {prob=}, {shift=}, {zoom=}, {turn=}. The "
                "authors' values are the defaults."
            )
        self.prob = prob
        self.limits = instaboost.Limits(shift, (pair[0], pair[1]), turn)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if np.random.uniform() >= self.prob:
            return results
        image = results["img"]
        if "gt_masks" not in results or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise InputError(
                "InstaBoost: it moves masks in an image of three colours from 0 to 255; got "
                f"{image.dtype} of {image.shape}, {'with' if 'gt_masks' in results else 'without'} "
                "masks. Put it behind LoadImage and LoadAnnotations(with_mask=True)."
            )
        masks = results["gt_masks"].to_ndarray().astype(np.uint8)  # a copy; of polygons too
        moving = np.flatnonzero(~results["gt_ignore_flags"] & masks.any((1, 2)))
        if not len(moving):
            return results
        results["img"], found, labels = instaboost.boosted(
            results["img"], masks[moving], self.limits, np.random, results.get("gt_seg_map")
        )
        if labels is not None:
            results["gt_seg_map"] = labels
        seen = found.any((1, 2))
        masks[moving] = found
        boxes = results["gt_bboxes"].tensor.clone()
        for i, mask in zip(moving[seen], found[seen], strict=True):
            boxes[i] = boxes.new_tensor(instaboost.extents(mask))
        kept = np.ones(len(masks), bool)
        kept[moving[~seen]] = False
        results["gt_masks"] = BitmapMasks(masks[kept], *masks.shape[1:])
        results["gt_bboxes"] = HorizontalBoxes(boxes[kept])
        for key in ("gt_bboxes_labels", "gt_ignore_flags"):
            results[key] = results[key][kept]
        return results
