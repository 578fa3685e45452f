"""An iteration that a recorder kept, computed once more on the processor of this machine."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from swin_dense.checkpoints import files
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import diagnosis, generators, plain_batches, trained
from swin_dense.openmmlab.settings import building


@dataclass(frozen=True)
class Shown:
    """Hold what was found in the training, and what is found here."""

    images: list[str]
    found: str
    again: str


def replay(path: Path) -> Shown:
    """Compute the iteration of a file that the recorder wrote.

    Raises:
        InputError: it is no such file.
    """
    kept = files.read(path)
    config = trained.read_config(kept)
    if config is None or not {"batch", "generators"} <= kept.keys():
        raise InputError(
            f"{path}: it is no iteration that a training kept. Those are not_finite_N.pth in the "
            "`work_dir` of a run."
        )
    with MODELS.switch_scope_and_registry(config.get("default_scope", "mmengine")) as registry:
        model = revert_sync_batchnorm(building.build(registry, config.model, "model")).train()
        model.load_state_dict(kept["state_dict"])
        batch = plain_batches.rebuilt(kept["batch"])
        generators.restore(kept["generators"])
        kind = kept["meta"].get("precision")
        precision = partial(
            torch.autocast, "cpu", dtype=getattr(torch, kind or "bfloat16"), enabled=bool(kind)
        )
        found = diagnosis.of_iteration(model, batch, precision)
    return Shown(diagnosis.images(batch), kept["meta"]["found"], found.text)
