"""Heads of mmdet and mmseg with what mixed precision takes from them put back, and a loss."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models import DeformableDETRHead, DINOHead, FocalLoss, Mask2FormerHead, RepPointsHead
from mmdet.models.task_modules import AnchorGenerator
from mmseg.models.decode_heads import Mask2FormerHead as LabelMapMask2FormerHead
from torch import Tensor

from swin_dense.registry import MODELS, TASK_UTILS


class _InFloat32:
    """Outside autocast. A box is a share of the image: near 1, bfloat16 counts it in 256ths."""

    def forward(self, hidden_states: Tensor, references: Sequence[Tensor]) -> Any:
        with torch.autocast(hidden_states.device.type, enabled=False):
            return super().forward(hidden_states.float(), [r.float() for r in references])  # type: ignore[misc]


@MODELS.register_module()
class Float32DeformableDETRHead(_InFloat32, DeformableDETRHead):
    """mmdet's head of Deformable DETR, its boxes in float32 under any autocast."""


@MODELS.register_module()
class Float32DINOHead(_InFloat32, DINOHead):
    """mmdet's head of DINO, its boxes in float32 under any autocast."""


class _LossesInFloat32:
    """Matching and losses outside autocast, as in the authors' code.

    In bfloat16 a cost over the points of a mask has three digits, by which queries that are much
    alike are matched by chance, and each loss is rounded to as many.
    """

    def _loss_by_feat_single(self, cls_scores: Tensor, mask_preds: Tensor, *rest: Any) -> Any:
        with torch.autocast(cls_scores.device.type, enabled=False):
            return super()._loss_by_feat_single(cls_scores.float(), mask_preds.float(), *rest)  # type: ignore[misc]


@MODELS.register_module()
class Float32Mask2FormerHead(_LossesInFloat32, Mask2FormerHead):
    """mmdet's head of Mask2Former, matched and judged in float32 under any autocast."""


@MODELS.register_module()
class Float32LabelMapMask2FormerHead(_LossesInFloat32, LabelMapMask2FormerHead):
    """mmseg's head of Mask2Former, matched and judged in float32 under any autocast."""


@MODELS.register_module()
class Float32RepPointsHead(RepPointsHead):
    """mmdet's head of RepPoints, its boxes in float32 at least under any autocast.

    Its places have the dtype of the scores; see `Float32AnchorGenerator` what becomes of them.
    """

    def points2bbox(self, pts: Tensor, y_first: bool = True) -> Tensor:
        return super().points2bbox(float32_at_least(pts), y_first)

    def get_targets(self, proposals_list: list[list[Tensor]], *rest: Any, **named: Any) -> tuple:
        """mmdet's, whose PointAssigner counts on the default device and indexes on its own."""
        with proposals_list[0][0].device:
            return super().get_targets(proposals_list, *rest, **named)

    def predict_by_feat(self, cls_scores: Sequence[Tensor], *rest: Any, **named: Any) -> Any:
        return super().predict_by_feat([float32_at_least(s) for s in cls_scores], *rest, **named)


def float32_at_least(x: Tensor) -> Tensor:
    """Return `x` in float32, or in its own dtype where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@MODELS.register_module()
class ClampedFocalLoss(FocalLoss):
    """mmdet's focal loss, but for a batch without objects, in which it is not divided by nothing.

    Sparse R-CNN divides it by their number, its authors by 1 at least: a sum over 300 proposals
    times ten million is no loss to learn from.
    """

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        count = None if avg_factor is None else avg_factor.clamp(min=1.0)
        return super().forward(pred, target, weight, count, reduction_override)


@TASK_UTILS.register_module()
class Float32AnchorGenerator(AnchorGenerator):
    """mmdet's anchors, in float32 at least whatever the dtype of the scores.

    A bfloat16 knows no corner between 1024 and 1032; proposals made from such anchors are off by
    as much.
    """

    def single_level_grid_priors(
        self,
        featmap_size: Any,
        level_idx: int,
        dtype: torch.dtype = torch.float32,
        device: Any = "cuda",
    ) -> Tensor:
        exact = torch.promote_types(dtype, torch.float32)
        return super().single_level_grid_priors(featmap_size, level_idx, exact, device)
