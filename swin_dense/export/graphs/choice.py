"""Which graph is that of a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from swin_dense.errors import InputError
from swin_dense.export.graphs import detectors, queries, segmentors
from swin_dense.export.graphs.graph import Graph

KINDS = "Faster, Mask and Cascade R-CNN, RetinaNet, ATSS, DINO, Mask2Former, UPerNet and its like"


def graph(model: nn.Module) -> Graph:
    """Return what a model of mmdet or mmseg computes.

    Raises:
        InputError: there is no graph of models of this kind, or of how it is tested.
    """
    kind = _kind(model)
    given: Any = model.data_preprocessor
    if hasattr(given, "pad_val"):  # mmseg's, which has what mmdet's has too, unused
        divisor, fill = _label_map_padding(given)
    else:
        divisor, fill = given.pad_size_divisor, float(given.pad_value)
    return kind(model, divisor, fill).eval()


def _kind(model: Any) -> type[Graph]:
    parts = ("rpn_head", "roi_head", "bbox_head", "panoptic_head", "decode_head")
    has = {name for name in parts if getattr(model, name, None) is not None}
    if {"rpn_head", "roi_head"} <= has and hasattr(model.roi_head, "bbox_roi_extractor"):
        _require_usual(model)
        masked = getattr(model.roi_head, "mask_head", None) is not None
        return detectors.TwoStageMasks if masked else detectors.TwoStage
    if "panoptic_head" in has:
        panoptic = model.panoptic_fusion_head.test_cfg.get("panoptic_on", True)
        return queries.Panoptic if panoptic else queries.Masks
    if "bbox_head" in has and hasattr(model, "dn_query_generator"):
        return queries.Dino
    if "bbox_head" in has and hasattr(model.bbox_head, "anchor_generator"):
        _require_nms(model.test_cfg)
        return detectors.OneStage
    if "decode_head" in has:
        _require_whole(model)
        masked = hasattr(model.decode_head, "pixel_decoder")
        return queries.MaskLabelMaps if masked else segmentors.LabelMaps
    raise _unknown(model)


def _unknown(model: Any) -> InputError:
    return InputError(
        f"model: no file can be written of a {type(model).__name__} as this config has it. Files "
        f"can be written of {KINDS}."
    )


def _require_usual(model: Any) -> None:
    """Let pass second stages that find boxes and masks as Mask and Cascade R-CNN do."""
    roi = model.roi_head
    heads = list(roi.bbox_head) if isinstance(roi.bbox_head, nn.ModuleList) else [roi.bbox_head]
    others = [name for name in ("semantic_head", "glbctx_head", "mask_iou_head", "grid_head")
              if getattr(roi, name, None) is not None]  # fmt: skip
    if others or any(getattr(head, "custom_activation", False) for head in heads):
        raise _unknown(model)
    if not hasattr(model.rpn_head, "anchor_generator"):
        raise _unknown(model)
    _require_nms(model.test_cfg["rpn"], model.test_cfg["rcnn"])


def _require_nms(*rules: Mapping[str, Any]) -> None:
    for rule in rules:
        kind = rule["nms"].get("type", "nms")
        if kind != "nms":
            raise InputError(
                f"model.test_cfg.nms.type: a file suppresses by 'nms'; this config says {kind!r}. "
                "Set it to 'nms' to write one; what it finds is another thing then."
            )


def _require_whole(model: Any) -> None:
    mode = model.test_cfg.get("mode", "whole")
    if mode != "whole":
        raise InputError(
            f"model.test_cfg.mode: a file looks at whole images; this config says {mode!r}, "
            "windows that slide over them. Set it to 'whole' to write one; what it finds is "
            "another thing then."
        )


def _label_map_padding(given: Any) -> tuple[int, float]:
    """Return to which multiples mmseg extends images in a test, and by which value."""
    rule = getattr(given, "test_cfg", None) or {}
    if rule.get("size") is not None:
        raise InputError(
            f"model.data_preprocessor.test_cfg.size: images are extended to {rule['size']}, and a "
            "file takes any size. Use size_divisor."
        )
    return int(rule.get("size_divisor") or 1), float(given.pad_val)
