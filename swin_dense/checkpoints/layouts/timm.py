"""timm: models/swin_transformer.py and swin_transformer_v2.py.

Old versions had the authors' names. Newer ones merge patches at the entrance of a stage, so the
numbers of their `downsample` are one higher, and call the classifier `head.fc`. A model made with
features_only=True says `layers_0` for `layers.0` and has no norms.
"""

from swin_dense.checkpoints.layouts import authors
from swin_dense.checkpoints.layouts.layout import CLASSES, V1, V2, Layout
from swin_dense.checkpoints.names import under

LAYOUTS = tuple(
    Layout(
        name=f"timm {kind}",
        architecture=kind,
        table=authors.backbone(kind, merge="layers.{stage+1}.downsample.") | authors.LAST_NORM,
        dropped=under(authors.BLOCK, authors.BUFFERS) | {"head.fc.{end}": CLASSES},
    )
    for kind in (V1, V2)
) + tuple(
    Layout(
        name=f"timm {kind}, features only",
        architecture=kind,
        table=authors.backbone(
            kind, "layers_{stage}.blocks.{block}.", "layers_{stage+1}.downsample."
        ),
        dropped=under("layers_{stage}.blocks.{block}.", authors.BUFFERS),
    )
    for kind in (V1, V2)
)
