"""Whole detectors and segmentors: a backbone under "backbone.", and heads beside it.

The heads keep their names: those of mmdet 2.x and mmseg 0.x, and with them of the authors'
SwinTransformer/Swin-Transformer-Object-Detection and -Semantic-Segmentation, are those of mmdet 3.x
and mmseg 1.x. A head is known by the attribute that holds it; what is in it the model will judge.
"""

from dataclasses import replace

from swin_dense.checkpoints.layouts import authors, openmmlab
from swin_dense.checkpoints.layouts.layout import Layout
from swin_dense.checkpoints.names import same, under

DETECTOR = same(
    "neck.{any}",
    "rpn_head.{any}",
    "roi_head.{any}",
    "bbox_head.{any}",
    "mask_head.{any}",
    "semantic_head.{any}",
    "panoptic_head.{any}",
    "panoptic_fusion_head.{any}",
) | same(  # the family of DETR
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
SEGMENTOR = same("neck.{any}", "decode_head.{any}", "auxiliary_head.{any}")


# The authors' code writes this buffer, ours does not.
WRITTEN_THERE = "backbone.layers.0.blocks.0.attn.relative_position_index"


def _behind(bare: Layout) -> Layout:
    """A backbone alone, as it is cut out of a model."""
    return replace(
        bare,
        name=f"{bare.name}, behind 'backbone.'",
        table=under("backbone.", bare.table),
        dropped=under("backbone.", bare.dropped),
        marks=tuple("backbone." + mark for mark in bare.marks),
    )


def _whole(name: str, bare: Layout, heads: dict[str, str], *marks: str) -> Layout:
    return replace(
        bare,
        name=name,
        table=under("backbone.", bare.table, "backbone.") | heads,
        dropped=under("backbone.", bare.dropped),
        marks=marks,
        whole=True,
    )


LAYOUTS = (
    *(_behind(bare) for bare in (*authors.DENSE, *openmmlab.BACKBONES)),
    _whole("official Swin V1 detector (mmdet 2.x)", authors.DENSE[0], DETECTOR, WRITTEN_THERE),
    _whole("official Swin V1 segmentor (mmseg 0.x)", authors.DENSE[0], SEGMENTOR, WRITTEN_THERE),
    *(_whole(f"swin_dense {bare.architecture} detector", bare, DETECTOR) for bare in authors.DENSE),
    *(
        _whole(f"swin_dense {bare.architecture} segmentor", bare, SEGMENTOR)
        for bare in authors.DENSE
    ),
    *(
        _whole(f"mmdet 3.x {bare.architecture} detector", bare, DETECTOR)
        for bare in openmmlab.BACKBONES
    ),
    *(
        _whole(f"mmseg 1.x {bare.architecture} segmentor", bare, SEGMENTOR)
        for bare in openmmlab.BACKBONES
    ),
)
