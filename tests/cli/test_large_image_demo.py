"""A large image on disk becomes a folder: an overview, JSON, outlines or a label map."""

import json

import numpy as np
import pytest
import tifffile
from conftest import SMALL
from PIL import Image

from swin_dense.cli import large_image_demo

SCALE = SMALL[:2]


@pytest.fixture
def mosaic(tmp_path, small_shapes):
    """Four pictures of 72x104 as one, somewhere on Earth."""
    pictures = [np.asarray(Image.open(p)) for p in sorted(small_shapes.image_dir("val").iterdir())]
    rows = [np.concatenate(pictures[:2], 1), np.concatenate(pictures[2:], 1)]
    path = tmp_path / "mosaic.tif"
    scale = (33550, 12, 3, (0.5, 0.5, 0.0), True)
    tifffile.imwrite(path, np.concatenate(rows), photometric="rgb", extratags=[scale])
    return path


@pytest.fixture
def run(trained, mosaic, tmp_path):
    task, config, work = trained
    least = ["--score-thr", "0.0"] if task == "detection" else []

    def run(*more, source=mosaic, out=tmp_path / "out"):
        arguments = [str(source), str(config), str(work / "iter_8.pth"), "--out", str(out)]
        return large_image_demo.main([*arguments, *SCALE, *least, *more])

    return run


def test_a_folder_of_results(trained, run, tmp_path, capsys):
    assert run("--tile", "128", "--overlap", "20", "--batch-size", "3") == 0
    out = tmp_path / "out"
    assert Image.open(out / "overview.png").size >= (208, 144)
    result = json.loads((out / "result.json").read_text())
    assert (result["height"], result["width"]) == (144, 208)
    printed = capsys.readouterr().out
    if trained[0] == "detection":
        features = json.loads((out / "objects.geojson").read_text())["features"]
        assert len(features) == len(result["instances"]) > 0
        assert not (out / "labels.tif").exists()
    else:
        with tifffile.TiffFile(out / "labels.tif") as file:
            assert file.pages[0].tags[33550].value == (0.5, 0.5, 0.0)
            labels = file.asarray()
        assert labels.shape == (144, 208)
        assert sum(result["classes"].values()) == labels.size
        assert f"-> {out / 'labels.tif'}" in printed


@pytest.mark.parametrize("trained", ["segmentation"], indirect=True)
@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--tile", "16"], "--tile: a whole number of pixels from 32, got 16"),
        (["--tile", "64", "--overlap", "99"], "--overlap: 99 pixels are not less than a tile's 64"),
        (["--most-pixels", "5"], "at most 5 are looked at. Raise it with --most-pixels"),
        (["--level", "3"], "--level 3: "),
        (["--tile", "64", "--score-thr", "0.5"], "--score-thr: this model gives a class"),
    ],
)
def test_a_mistake_is_one_line(run, more, text, capsys):
    assert run(*more) == 2
    errors = capsys.readouterr().err.splitlines()
    assert text in errors[-1]
    assert not any("Traceback" in line for line in errors)
