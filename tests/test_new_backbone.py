"""The backbone that docs/new_backbone.md shows whole keeps what every architecture promises."""

import importlib
import sys
from typing import ClassVar

import pytest
from conftest import ROOT
from documented import blocks

from swin_dense.registry import MODELS

sys.path.insert(0, str(ROOT / "tests/backbones"))
from contract import Contract

sys.path.remove(str(ROOT / "tests/backbones"))


class TestMyNet(Contract):
    parameters: ClassVar = {"tiny": 5.481}

    @pytest.fixture(scope="class", autouse=True)
    def _shown(self, tmp_path_factory):
        """Import the first block of the page as the module that it names; forget it afterwards."""
        folder = tmp_path_factory.mktemp("shown")
        (folder / "my_net.py").write_text(blocks(ROOT / "docs/new_backbone.md")[0].text)
        sys.path.insert(0, str(folder))
        type(self).kind = importlib.import_module("my_net").MyNet
        yield
        sys.path.remove(str(folder))
        del sys.modules["my_net"], MODELS.module_dict["MyNet"]
