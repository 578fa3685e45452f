"""Dense prediction with Swin Transformers on PyTorch and the OpenMMLab stack.

    model = swin_dense.load("mask_rcnn_swin_t", "weights.pth")
    result = model.predict("photo.jpg")

torch and OpenMMLab are imported when one of these names is first used.
"""

from typing import TYPE_CHECKING

from swin_dense import mmcv_stand_in  # noqa: F401  (mmcv finds its ops from here on)

__version__ = "0.1.0"
__all__ = ["Instances", "LabelMap", "Predictor", "Segments", "load"]

if TYPE_CHECKING:
    from swin_dense.openmmlab.engine.predictor import Predictor, load
    from swin_dense.report.results import Instances, LabelMap, Segments
else:

    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from swin_dense.openmmlab.engine import predictor

        globals().update({each: getattr(predictor, each) for each in __all__})
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *__all__})
