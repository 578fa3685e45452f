"""A batch as tensors and plain values: a file that holds one is read without running code."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import BaseBoxes, HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from swin_dense.errors import InputError

KIND = "__kind__"
ELEMENTS = {
    kind.__name__: kind
    for kind in (DetDataSample, SegDataSample, InstanceData, PixelData, BaseDataElement)
}


def plain(node: Any) -> Any:
    """Return a batch in dicts, lists, tensors and plain values."""
    if isinstance(node, BaseBoxes):
        return {KIND: "boxes", "tensor": node.tensor.cpu()}
    if isinstance(node, BitmapMasks):
        size = (node.height, node.width)
        return {KIND: "bitmaps", "masks": torch.from_numpy(node.masks.copy()), "size": size}
    if isinstance(node, PolygonMasks):
        parts = [[torch.from_numpy(np.array(part)) for part in one] for one in node.masks]
        return {KIND: "polygons", "masks": parts, "size": (node.height, node.width)}
    if isinstance(node, BaseDataElement):
        kind = next(name for name, one in ELEMENTS.items() if isinstance(node, one))
        about = {name: plain(value) for name, value in node.metainfo_items()}
        return {KIND: kind, "about": about, "data": {k: plain(v) for k, v in node.items()}}
    if isinstance(node, Tensor):
        return node.detach().cpu()
    if isinstance(node, np.ndarray | np.generic):
        return {KIND: "array", "values": torch.from_numpy(np.array(node))}
    if isinstance(node, Mapping):
        return {str(name): plain(value) for name, value in node.items()}
    if isinstance(node, tuple):
        return {KIND: "tuple", "values": [plain(value) for value in node]}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node if node is None or isinstance(node, str | int | float) else str(node)


def rebuilt(node: Any) -> Any:
    """Return the batch of which `plain` made this.

    Raises:
        InputError: it is nothing that `plain` makes.
    """
    if isinstance(node, list):
        return [rebuilt(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    kind = node.get(KIND)
    if kind is None:
        return {name: rebuilt(value) for name, value in node.items()}
    if kind == "boxes":
        return HorizontalBoxes(node["tensor"])
    if kind == "bitmaps":
        return BitmapMasks(node["masks"].numpy(), *node["size"])
    if kind == "polygons":
        return PolygonMasks([[p.numpy() for p in one] for one in node["masks"]], *node["size"])
    if kind == "array":
        return node["values"].numpy()
    if kind == "tuple":
        return tuple(rebuilt(value) for value in node["values"])
    if kind not in ELEMENTS:
        raise InputError(f"batch: it holds a {kind!r}, which no batch of ours does.")
    made = ELEMENTS[kind](metainfo={k: rebuilt(v) for k, v in node["about"].items()})
    for name, value in node["data"].items():
        setattr(made, name, rebuilt(value))
    return made
