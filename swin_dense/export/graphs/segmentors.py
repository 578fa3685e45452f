"""Segmentors: one class for each pixel."""

from torch import Tensor

from swin_dense.export.graphs.graph import Graph, Size, resized


class LabelMaps(Graph):
    """mmseg's encoder and decoder, run over the whole image."""

    OUTPUTS = ("label_map",)

    def find(self, image: Tensor, inside: Size, size: Tensor) -> tuple[Tensor, ...]:
        """Find the class (B, h, w) of each pixel of the image as it came."""
        head = self.model.decode_head
        meta = {"img_shape": tuple(image.shape[2:]), "pad_shape": tuple(image.shape[2:])}
        maps = self.model.extract_feat(image)
        logits = head.predict(maps, [meta], self.model.test_cfg)
        logits = resized(logits, inside, size)
        if logits.shape[1] > 1:
            return (logits.argmax(1),)
        return ((logits[:, 0].sigmoid() > head.threshold).long(),)
