"""Ask for a trained model that looks at images, and load it."""

import argparse
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.errors import InputError
from swin_dense.task import Task

if TYPE_CHECKING:
    from swin_dense.openmmlab.engine.predictor import Predictor


def add(to: argparse.ArgumentParser) -> None:
    """Add the model, and how it looks at images."""
    options.add_trained(to)
    _add_how(to)


def add_several(to: argparse.ArgumentParser) -> None:
    """Add how models look at images, for a command that names them in its own way."""
    options.add_settings(to)
    _add_how(to)


def _add_how(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--score-thr", type=options.share, metavar="S", help="leave out weaker ones, 0 to 1 (0.3)"
    )
    to.add_argument("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    to.add_argument(
        "--precision",
        choices=["float32", "bf16", "half"],
        default="float32",
        help="compute products with 16 bits: less memory, and faster where a device is made for it",
    )
    to.add_argument(
        "--image-scale",
        metavar="LONG,SHORT",
        type=options.scale,
        help="fit images into this size (pixels) instead of the checkpoint's or the config's",
    )


def how(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what `predictor.load` is told besides the files."""
    return {
        "device": asked.device,
        "image_scale": asked.image_scale,
        "options": asked.cfg_options,
        "precision": asked.precision,
        "trust_config": asked.trust_config,
    }


def load(asked: argparse.Namespace) -> "Predictor":
    """Load what `add` asked for; see `load_one`."""
    return load_one(asked, asked.config, asked.checkpoint)


def load_one(asked: argparse.Namespace, config: str | None, checkpoint: str) -> "Predictor":
    """Load a model that looks at images as was asked for.

    Raises:
        InputError: see `predictor.load`; or a score is asked for that the model does not give.
    """
    from swin_dense.openmmlab.engine import predictor

    model = predictor.load(config, checkpoint, **how(asked))
    if asked.score_thr is not None and model.task is Task.SEMANTIC:
        raise InputError(
            "--score-thr: this model gives a class to every pixel and no scores. Leave it out."
        )
    return model
