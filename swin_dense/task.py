"""The task of a config, read from it in one place."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

PANOPTIC_DATA = "swin_dense.CocoPanoptic"
MASK_HEADS = ("mask_head", "panoptic_head")  # the second is also what Mask2Former calls its own
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


class Task(Enum):
    """What a model finds in an image."""

    DETECTION = "detection"  # boxes
    INSTANCES = "instance segmentation"  # boxes, each with a mask
    PANOPTIC = "panoptic segmentation"  # segments of things and stuff
    SEMANTIC = "semantic segmentation"  # a class for each pixel

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Task":
        """Read the task from a whole config: from its library, its data and its heads."""
        if config["default_scope"] == "mmseg":
            return cls.SEMANTIC
        for name in LOADERS:
            node = config.get(name) or {}
            while "dataset" in node:
                node = node["dataset"]
            if node.get("type") == PANOPTIC_DATA:
                return cls.PANOPTIC
        return cls.INSTANCES if _has_masks(config.get("model")) else cls.DETECTION


def _has_masks(node: Any) -> bool:
    if isinstance(node, Mapping):
        return not node.keys().isdisjoint(MASK_HEADS) or any(map(_has_masks, node.values()))
    return isinstance(node, list | tuple) and any(map(_has_masks, node))
