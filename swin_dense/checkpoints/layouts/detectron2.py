"""detectron2 and the projects upon it, such as Mask2Former: mask2former/modeling/backbone/swin.py.

The backbone has the authors' names, behind "backbone." or, below a feature pyramid, behind
"backbone.bottom_up.". Heads have another form than those of mmdet and mmseg, so none is carried
over. A classification file made ready for detectron2 is the authors' file in another wrapping.
"""

from swin_dense.checkpoints.layouts import authors
from swin_dense.checkpoints.layouts.layout import Layout
from swin_dense.checkpoints.names import under

HEAD = "a head of detectron2's, which has no counterpart of this form"
HEADS = {
    "sem_seg_head.{any}": HEAD,
    "criterion.{any}": "a weight of the loss",
    "proposal_generator.{any}": HEAD,
    "roi_heads.{any}": HEAD,
    "transformer.{any}": HEAD,
    "backbone.fpn_lateral{any}": HEAD,
    "backbone.fpn_output{any}": HEAD,
    "backbone.top_block.{any}": HEAD,
    "pixel_mean": "belongs to the preprocessing",
    "pixel_std": "belongs to the preprocessing",
}

LAYOUTS = tuple(
    Layout(
        name=f"detectron2 {dense.architecture}" + note,
        architecture=dense.architecture,
        table=under(prefix, authors.backbone(dense.architecture) | authors.NORMS),
        dropped=under(prefix, dense.dropped) | HEADS,
        marks=(prefix + "patch_embed.proj.weight", *marks),
        flat_ape=False,
    )
    for dense in authors.DENSE
    for prefix, note, marks in (
        ("backbone.", ", Mask2Former", ("sem_seg_head.{any}",)),
        ("backbone.bottom_up.", " with a feature pyramid", ()),
    )
)
