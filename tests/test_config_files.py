"""A config is found by name from any folder; a file that is there wins."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swin_dense import config_files
from swin_dense.config_files import find_config
from swin_dense.errors import MissingInputError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_names_are_those_of_the_checkout():
    assert config_files.names() == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "mask_rcnn_swin_t.py"])
def test_a_name_is_found_from_any_folder(name):
    assert find_config(name).samefile(ROOT / "configs/mask_rcnn_swin_t.py")


def test_a_file_that_is_there_wins(tmp_path):
    Path("mask_rcnn_swin_t").mkdir()  # a folder is no config
    assert find_config("mask_rcnn_swin_t").samefile(ROOT / "configs/mask_rcnn_swin_t.py")
    Path("mask_rcnn_swin_t.py").write_text("")
    assert find_config("mask_rcnn_swin_t.py").samefile(tmp_path / "mask_rcnn_swin_t.py")


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("mask_rcnn_swin_tt", " Did you mean 'mask_rcnn_swin_t'?"),
        ("configs/mask_rcnn_swin_t.py", " Did you mean 'mask_rcnn_swin_t'?"),
        ("mine/experimnt.py", " Did you mean 'experiment.py'?"),
        ("_base_/adamw.py", ""),
        ("mine", ""),
        ("", ""),
    ],
)
def test_what_is_neither_gets_the_nearest(asked, hint):
    Path("mine").mkdir()
    Path("mine/experiment.py").write_text("")
    with pytest.raises(MissingInputError) as error:
        find_config(asked)
    assert str(error.value) == (
        f"config: there is no file {Path(asked)}, and none of ours in {config_files.FOLDER} has "
        f"that name.{hint} Give the path of a file, or a name without folder such as "
        "mask_rcnn_swin_t."
    )


def test_a_built_package_carries_the_configs(tmp_path):
    """All of them, and found there although no checkout is near; kernels are another test's."""
    source = tmp_path / "source"
    for name in ("swin_dense", "configs"):
        without = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=without)
    (source / "tools").mkdir()
    files = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    for name in (*files, "tools/compilers.py"):
        shutil.copy(ROOT / name, source / name)
    place = tmp_path / "installed"
    (place / "swin_dense/configs").mkdir(parents=True)
    (place / "swin_dense/configs/of_yesterday.py").write_text("")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(place)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    shutil.rmtree(source)
    ours, packed = (
        {path.relative_to(top) for path in top.rglob("*.py")}
        for top in (ROOT / "configs", place / "swin_dense/configs")
    )
    assert ours == packed
    code = "from swin_dense.config_files import find_config; print(find_config('dino_swin_t'))"
    environment = {**os.environ, "PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{place}/swin_dense/configs/dino_swin_t.py", done.stderr
