"""The console script knows every command that exists as a file."""

import importlib
import sys

import pytest
from conftest import ROOT

from swin_dense.cli import main


@pytest.mark.parametrize("name", main.COMMANDS)
def test_each_command_has_a_module_with_main(name):
    assert callable(importlib.import_module(main.COMMANDS[name]).main)


def test_each_tool_is_a_command():
    tools = {p.stem for p in (ROOT / "tools").glob("*.py")} | {"image_demo"}
    assert tools - {"install"} == {module.rpartition(".")[2] for module in main.COMMANDS.values()}


@pytest.mark.parametrize("arguments", [[], ["trian"]])
def test_another_name_prints_the_names(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["swin-dense", *arguments])
    assert main.main() == 2
    assert "train,test,image-demo" in capsys.readouterr().err


def test_help_of_each_command_ends_well(capsys):
    for name in ("train", "test", "image-demo", "benchmark"):
        with pytest.raises(SystemExit) as stop:
            importlib.import_module(main.COMMANDS[name]).main(["--help"])
        assert stop.value.code == 0
    assert "--data-root" in capsys.readouterr().out
