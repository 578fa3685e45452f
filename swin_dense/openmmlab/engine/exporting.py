"""Write a loaded model as a file that knows its classes and how images are prepared for it."""

from pathlib import Path

from swin_dense.errors import InputError
from swin_dense.export import formats
from swin_dense.export.graphs import choice
from swin_dense.openmmlab.engine import trained
from swin_dense.openmmlab.engine.file_model import FileModel
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.openmmlab.settings import image_sizes


def write(model: Predictor, path: Path, sampling: str = "grid") -> None:
    """Write a model.

    Args:
        model: on the processor.
        path: its suffix says which format; one of formats.SUFFIXES.
        sampling: how deformable attention reads maps: "grid" or "gather".

    Raises:
        InputError: there is no graph of this model, or the format's package is not installed.
    """
    if isinstance(model.model, FileModel):
        raise InputError(f"{model.weights['file']}: it is a file already. Name a checkpoint.")
    if model.device.type != "cpu":
        raise InputError("device: a model is written from the processor. Load it on 'cpu'.")
    about = {
        "format": 1,
        "task": model.task.value,
        "classes": list(model.classes),
        "things": list(model.things),
        "weights": model.weights,
        "config": trained.write_config(model.config),
        "preparation": {
            "fitted_into": image_sizes.test_scale(model.config),
            **{
                key: model.config.model.data_preprocessor.get(key)
                for key in ("mean", "std", "bgr_to_rgb")
            },
        },
    }
    formats.write(choice.graph(model.model), path, about, sampling)
