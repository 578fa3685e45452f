"""Models around a backbone: their prefix of its names, and the heads beside it.

The heads of detectors and segmentors keep their names: those of mmdet 2.x and mmseg 0.x, and with
them of the dense code of many authors, are those of mmdet 3.x and mmseg 1.x. A head is known by the
attribute that holds it; what is in it the model will judge. detectron2's heads have another form,
so none is carried over, and a classifier's say nothing of our classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swin_dense.checkpoints.architecture import CLASSES
from swin_dense.checkpoints.names import first

BACKBONE = "backbone."  # before our own names of a backbone in a model


@dataclass(frozen=True)
class Kind:
    """A kind of model around a backbone."""

    phrase: str  # behind the name of the backbone's layout
    prefix: str  # before the backbone's names
    kept: tuple[str, ...] = ()  # names that are ours too
    dropped: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Say whether the heads come along, else a bare backbone is taken out."""
        return bool(self.kept)


DETECTOR = (
    "neck.{any}",
    "rpn_head.{any}",
    "roi_head.{any}",
    "bbox_head.{any}",
    "mask_head.{any}",
    "semantic_head.{any}",
    "panoptic_head.{any}",
    "panoptic_fusion_head.{any}",
    # the family of DETR
    "encoder.{any}",
    "decoder.{any}",
    "level_embed",
    "query_embedding.{any}",
    "query_map.{any}",
    "patterns.{any}",
    "positional_encoding.{any}",
    "reference_points_fc.{any}",
    "memory_trans_fc.{any}",
    "memory_trans_norm.{any}",
    "pos_trans_fc.{any}",
    "pos_trans_norm.{any}",
    "dn_query_generator.{any}",
)
SEGMENTOR = ("neck.{any}", "decode_head.{any}", "auxiliary_head.{any}")
CLASSIFIER = {"head.{end}": CLASSES, "head.fc.{end}": CLASSES}
PRETRAINING = {"neck.decoder.{any}": "paints hidden patches in pre-training"}
OF_DETECTRON2 = "a head of detectron2's, which has no counterpart of this form"
DETECTRON2 = {
    "sem_seg_head.{any}": OF_DETECTRON2,
    "proposal_generator.{any}": OF_DETECTRON2,
    "roi_heads.{any}": OF_DETECTRON2,
    "transformer.{any}": OF_DETECTRON2,
    "backbone.fpn_lateral{any}": OF_DETECTRON2,
    "backbone.fpn_output{any}": OF_DETECTRON2,
    "backbone.top_block.{any}": OF_DETECTRON2,
    "criterion.{any}": "a weight of the loss",
    "pixel_mean": "belongs to the preprocessing",
    "pixel_std": "belongs to the preprocessing",
}
OF_DINO = "a part of DINO in its authors' names, which are not mmdet's"
DINO = {
    f"{part}.{{any}}": OF_DINO
    for part in ("transformer", "input_proj", "label_enc", "class_embed", "bbox_embed")
}

# The first that has a place for all names is taken.
KINDS = (
    Kind("", ""),
    Kind(" behind 'backbone.'", BACKBONE),
    Kind(" in a classifier", BACKBONE, dropped=CLASSIFIER),
    Kind(" in masked pre-training", BACKBONE, dropped=PRETRAINING),
    Kind(" in a detector", BACKBONE, DETECTOR),
    Kind(" in a segmentor", BACKBONE, SEGMENTOR),
    Kind(" in detectron2", BACKBONE, dropped=DETECTRON2),
    Kind(" in DINO's own code", "backbone.0.", dropped=DINO),
    Kind(" in detectron2 with a feature pyramid", "backbone.bottom_up.", dropped=DETECTRON2),
)


@dataclass(frozen=True)
class Parts:
    """Names of a file sorted into the backbone and what stands beside it."""

    kind: Kind
    backbone: dict[str, str]  # name in the file -> name in the bare backbone
    kept: list[str]
    dropped: dict[str, str]
    unknown: list[str]


def sort(names: Iterable[str]) -> Parts:
    """Find the kind of model that has a place for all `names`, or for the most of them."""
    names = list(names)
    prefix = max(
        (kind.prefix for kind in KINDS if any(name.startswith(kind.prefix) for name in names)),
        key=len,
        default="",
    )
    kinds = [kind for kind in KINDS if kind.prefix == prefix]
    return min((_sorted(kind, names) for kind in kinds), key=lambda parts: len(parts.unknown))


def _sorted(kind: Kind, names: list[str]) -> Parts:
    parts = Parts(kind, {}, [], {}, [])
    for name in names:
        if name.startswith(kind.prefix):
            parts.backbone[name] = name.removeprefix(kind.prefix)
        elif first(kind.kept, name):
            parts.kept.append(name)
        elif found := first(kind.dropped, name):
            parts.dropped[name] = kind.dropped[found[0]]
        else:
            parts.unknown.append(name)
    return parts
