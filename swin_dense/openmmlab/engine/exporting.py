"""Write a loaded model as a file that knows its classes and how images are prepared for it."""

from pathlib import Path

from swin_dense.errors import InputError
from swin_dense.export import formats
from swin_dense.export.graphs import choice
from swin_dense.openmmlab.engine import trained
from swin_dense.openmmlab.engine.file_model import FileModel
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.openmmlab.settings import sections


def write(model: Predictor, path: Path, sampling: str = "grid") -> None:
    """Write a model.

    Args:
        path: its suffix says which format; one of formats.SUFFIXES.
        sampling: how deformable attention reads maps: "grid" or "gather".

    Raises:
        InputError: there is no graph of this model, or the format's package is not installed.
    """
    if isinstance(model.model, FileModel):
        raise InputError(f"{model.weights['file']}: it is a file already. Name a checkpoint.")
    resizing = [
        step for step in sections.walk(model.config.test_dataloader) if "keep_ratio" in step
    ]
    about = {
        "format": 1,
        "task": model.task.value,
        "classes": list(model.classes),
        "things": list(model.things),
        "weights": model.weights,
        "config": trained.write_config(model.config),
        "preparation": {
            "fitted_into": [list(step["scale"]) for step in resizing if step.get("scale")],
            **{
                key: model.config.model.data_preprocessor.get(key)
                for key in ("mean", "std", "bgr_to_rgb")
            },
        },
    }
    graph = choice.graph(model.model).to("cpu")
    formats.write(graph, path, about, sampling)
