"""Other projects to compare with that need torchvision."""

from pathlib import Path
from types import ModuleType

import pytest

from swin_dense.benchmarks.peers import NotInstalledError, reach, reach_backbone


def peer(name: str) -> ModuleType:
    """Import another project's module; the test is skipped where it is not installed."""
    try:
        return reach(name)
    except NotInstalledError as error:
        pytest.skip(str(error))


def peer_of(config: Path) -> None:
    """Import what the backbone of a config is from; the test is skipped where it is missing."""
    try:
        reach_backbone(config)
    except NotInstalledError as error:
        pytest.skip(str(error))
