"""Say in words what four errors of torch mean for a model that runs.

Only images, the batch, the machine of the moment and other processes decide them, so no check of
the config can come before.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import workers

TOO_FEW = ("selected index k out of range", "k not in range for dimension")  # CPU, GPU
LOST = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
ONE_VALUE = "Expected more than 1 value per channel"


@contextmanager
def explained() -> Iterator[None]:
    """Turn these errors, raised within, into an InputError; leave every other one as it is."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        text = str(error)
        if workers.is_full(error):
            raise InputError(workers.FULL) from error
        if any(lost in text for lost in LOST):
            raise InputError(
                "training: another process of this run has ended, and this one ends with it. What "
                "ended it stands beside its rank; if nothing does, it was killed, mostly for "
                "memory. `resume` goes on from the last checkpoint."
            ) from error
        if any(few in text for few in TOO_FEW):
            raise InputError(
                "model: top-k asks for more candidates than the feature map has. A DETR of two "
                "stages needs at least model.num_queries places in its maps: larger images "
                "(`image_scale`) or fewer queries. No model returns more than queries times "
                "classes: lower model.test_cfg.max_per_img."
            ) from error
        if ONE_VALUE not in text:
            raise
        raise InputError(
            "training: a batch norm saw one value per channel. A head that pools a map to one "
            "pixel needs at least two images in a process: train_dataloader.batch_size=2."
        ) from error
