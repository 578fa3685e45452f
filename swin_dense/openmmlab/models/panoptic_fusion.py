"""mmdet's fusion of masks for panoptic segmentation, with a score for each segment."""

from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmengine.structures import PixelData
from torch import Tensor

from swin_dense.registry import MODELS


@MODELS.register_module()
class PanopticFusion(MaskFormerFusionHead):
    """mmdet's fusion of masks into one map, with a score for each segment of it."""

    def panoptic_postprocess(self, mask_cls: Tensor, mask_pred: Tensor) -> PixelData:
        """
        Args:
            mask_cls: (Q, classes + 1) logits of the queries.
            mask_pred: (Q, h, w) logits.

        Returns:
            `sem_seg` (1, h, w), label + 1000 * instance (0 for stuff), `num_classes` where there
            is no segment; the metainfo "scores", segment -> probability of its class, for stuff
            the best of the queries that were joined.
        """
        found = super().panoptic_postprocess(mask_cls, mask_pred)
        scores, labels = mask_cls.softmax(-1).max(-1)
        kept = (labels != self.num_classes) & (scores > self.test_cfg.get("object_mask_thr", 0.8))
        segments, of_segment = found.sem_seg[0], {}
        if kept.any():
            scores = scores[kept]
            # The query that won a pixel, as the map was made.
            owner = (scores[:, None, None] * mask_pred[kept].sigmoid()).argmax(0)
            for segment in segments.unique().tolist():
                if segment != self.num_classes:
                    of_segment[segment] = scores[owner[segments == segment]].max().item()
        found.set_metainfo({"scores": of_segment})
        return found
