import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data():
    """Gives a folder of real data by name, where this machine has it; else the test is skipped."""

    def folder(name: str) -> Path:
        beside = Path(__file__).resolve().parents[3] / "shared"
        shared = Path(os.environ.get("SWIN_DENSE_SHARED", beside))
        if not (shared / "data" / name).is_dir():
            pytest.skip(f"no real data set {name!r} in {shared / 'data'} (SWIN_DENSE_SHARED)")
        return shared / "data" / name

    return folder
