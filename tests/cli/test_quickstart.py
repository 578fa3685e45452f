"""Each step is a command that exists; without a checkout the command says what it lacks."""

from pathlib import Path

import pytest

from swin_dense.cli import image_demo, quickstart, test, train
from swin_dense.config_files import find_config

COMMANDS = {"tools/train.py": train, "tools/test.py": test, "demo/image_demo.py": image_demo}


@pytest.mark.parametrize("name", quickstart.MODELS)
def test_the_steps_are_commands_of_the_checkout(name, monkeypatch, tmp_path):
    """Their files exist, seen from any folder, and their options are options."""
    monkeypatch.chdir(tmp_path)
    steps = quickstart._steps(name, Path("work"), Path("few"))
    assert [step[0] for step in steps] == list(COMMANDS)
    for tool, *words in steps:
        assert (quickstart.CHECKOUT / str(tool)).is_file()
        asked = COMMANDS[tool]._parser().parse_args([str(word) for word in words])
        assert find_config(asked.config).stem == name
        if tool == "tools/train.py":
            assert Path(asked.load_from).is_file()


def test_an_installed_package_says_what_it_lacks(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "CHECKOUT", tmp_path / "site-packages")
    assert quickstart.main([]) == 2
    assert f"there is no {tmp_path}/site-packages/demo/weights" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
