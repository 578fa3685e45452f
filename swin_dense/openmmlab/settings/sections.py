"""Parts of a config: the loaders of its splits, their data sets, and every dict within a part."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.errors import InputError

LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}


def datasets_of(config: Config, splits: tuple[str, ...]) -> list[ConfigDict]:
    """Return the innermost data set of each split; wrappers such as RepeatDataset hold one."""
    found = []
    for split in splits:
        node = config.get(LOADERS[split])
        if node is None:
            continue
        while "dataset" in node:
            node = node["dataset"]
        if "datasets" in node:
            raise InputError(
                f"config: {LOADERS[split]} joins several data sets ({node.get('type')}); the "
                "commands settle the classes of one. Merge them into one set first."
            )
        found.append(node)
    return found


def walk(node: Any) -> Iterator[Any]:
    """Yield every dict within a part, itself first."""
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from walk(value)
