"""The images of a run, in an order that a resumed run enters where the first one left it.

Each image that a sampler draws carries the number of its draw. Its augmentation follows from the
seed of the run and that number alone: neither from how many processes load data, nor from what
was drawn before, so that those already seen are passed over without being loaded.
"""

from collections.abc import Generator, Iterator
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset, Sampler

from swin_dense.openmmlab.engine import generators


class Draw(int):
    """A place in a data set, drawn as the `number`-th of an epoch, counted over all processes."""

    epoch: int
    number: int

    def __new__(cls, place: int, epoch: int, number: int) -> "Draw":
        """Make one from the three numbers."""
        made = super().__new__(cls, place)
        made.epoch, made.number = epoch, number
        return made

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        return Draw, (int(self), self.epoch, self.number)


def enter(loader: DataLoader, seed: int) -> None:
    """Number what a loader draws, seed each draw by it, and let the loader be entered anywhere.

    A loader of its own kind (without batches, of a stream) stays as it is.
    """
    loader.generator = torch.Generator().manual_seed(seed)  # the run's numbers stay its own
    batches: Any = loader.batch_sampler
    if not hasattr(batches, "sampler") or isinstance(batches, _Batches):
        return
    batches.sampler = _Draws(batches.sampler)
    # A loader refuses both by assignment once it is made.
    object.__setattr__(loader, "batch_sampler", _Batches(batches))
    object.__setattr__(loader, "dataset", _Seeded(loader.dataset, seed))


def batches(loader: DataLoader, seen: int) -> Generator[Any, None, None]:
    """Give the batches of one pass through the data, without loading the first `seen`."""
    order: Any = loader.batch_sampler
    if isinstance(order, _Batches):
        order.passed_over = seen
        yield from loader
        return
    for number, batch in enumerate(loader):
        if number >= seen:
            yield batch


def endless(loader: DataLoader, seen: int) -> Generator[Any, None, None]:
    """Give batches for ever, without loading the first `seen`."""
    epoch, order = 0, loader.batch_sampler
    while True:
        sampler = getattr(order, "sampler", loader.sampler)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        given, before = False, seen
        for batch in batches(loader, seen):
            given = True
            yield batch
        seen = order.passed_over if isinstance(order, _Batches) else max(0, seen - len(loader))
        epoch += 1
        if not given and seen == before:
            raise RuntimeError("the loader of the training gives no batch")


class _Around:
    """Stand in for something: all that is not defined here is asked of it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # asked while it is unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)


class _Draws(_Around, Sampler):
    def __iter__(self) -> Iterator[Any]:
        epoch = getattr(self.inner, "epoch", 0)
        rank, processes = get_dist_info()
        for number, place in enumerate(self.inner):
            one_image = not isinstance(place, tuple | list)
            yield Draw(place, epoch, number * processes + rank) if one_image else place


class _Batches(_Around):
    passed_over = 0

    def __iter__(self) -> Iterator[Any]:
        for batch in self.inner:
            if self.passed_over:
                self.passed_over -= 1
            else:
                yield batch


class _Seeded(_Around, Dataset):
    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__(dataset)
        self.seed = seed

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, Draw):
            return self.inner[place]
        with generators.begun_at(self.seed, place.epoch, place.number):
            return self.inner[int(place)]
