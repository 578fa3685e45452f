"""Train on one folder of labels for all images, with rare classes counting for more."""

import json
import shutil

import pytest
from conftest import CONFIGS, SMALL

from swin_dense.cli import train


@pytest.fixture
def whole(small_shapes, tmp_path):
    """Nine images and their labels, in one file and in one folder."""
    root = tmp_path / "set"
    shutil.copytree(small_shapes.root / "images/train", root / "images")
    shutil.copytree(small_shapes.root / "label_maps/train", root / "masks")
    shutil.copy(small_shapes.annotation_file("train"), root / "annotations.json")
    shutil.copy(small_shapes.root / "classes.txt", root)
    return root


def run(whole, work, name, *options):
    return train.main(
        [str(CONFIGS[name]), "--data-root", str(whole), "--work-dir", str(work)]
        + ["--max-iters", "1", *options, *SMALL]
    )


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("segmentation", ["--class-weights", "median"], "class weights (median frequency, "),
        ("detection", ["--repeat-factor", "0.9"], "repeat factor 0.9: "),
    ],
)
def test_the_options_reach_the_training(name, options, says, whole, tmp_path, capsys):
    work = tmp_path / "work"
    assert run(whole, work, name, "--val-share", "0.3", "--no-val", *options) == 0
    assert says in capsys.readouterr().out
    note = json.loads((work / "split/split.json").read_text())
    assert note["train"] + note["val"] == 9
    assert (work / "iter_1.pth").is_file()


def test_without_a_share_the_command_says_which_option(whole, tmp_path, capsys):
    assert run(whole, tmp_path / "work", "detection") == 2
    assert "as --val-share 0.2, when you train" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
