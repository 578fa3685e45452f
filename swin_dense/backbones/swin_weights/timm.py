"""timm: models/swin_transformer.py and swin_transformer_v2.py.

Old versions had the authors' names. Newer ones merge patches at the entrance of a stage, so the
numbers of their `downsample` are one higher, and call the classifier `head.fc`. A model made with
features_only=True says `layers_0` for `layers.0` and has no norms.
"""

from swin_dense.backbones.swin_weights import authors
from swin_dense.backbones.swin_weights.orders import PLACE_ROW
from swin_dense.backbones.swin_weights.rows import V1, V2
from swin_dense.checkpoints.architecture import CLASSES, Layout
from swin_dense.checkpoints.names import under

FEATURES_BLOCK, FEATURES_MERGE = "layers_{stage}.blocks.{block}.", "layers_{stage+1}.downsample."

LAYOUTS = {
    kind: (
        Layout(
            name=f"timm {kind}",
            table=authors.backbone(kind, merge="layers.{stage+1}.downsample.") | authors.LAST_NORM,
            dropped=under(authors.BLOCK, authors.BUFFERS) | {"head.fc.{end}": CLASSES},
            orders=(PLACE_ROW,),
        ),
        Layout(
            name=f"timm {kind}, features only",
            table=authors.backbone(kind, FEATURES_BLOCK, FEATURES_MERGE),
            dropped=under(FEATURES_BLOCK, authors.BUFFERS),
            orders=(PLACE_ROW,),
        ),
    )
    for kind in (V1, V2)
}
