"""The command that writes files: what it finds equal, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from peers import peer

import swin_dense
from swin_dense.cli import export, predict, test
from swin_dense.cli.command import FAULT, MISTAKE
from swin_dense.export import sessions
from swin_dense.openmmlab.engine import certificate, exporting


@pytest.fixture(scope="module")
def written(trained, small_shapes, tmp_path_factory):
    """(task, weights, a file with its certificate)."""
    for package in ("onnx", "onnxruntime"):
        peer(package)
    task, _, work = trained
    out = tmp_path_factory.mktemp("file") / "model.onnx"
    weights = work / "iter_8.pth"
    status = export.main([str(weights), "--data-root", str(small_shapes.root), "--out", str(out)])
    assert status == 0
    return task, weights, out


def test_a_certificate_says_what_both_found(written):
    task, weights, out = written
    found = json.loads(out.with_name("model.onnx.json").read_text())
    assert found["passed"]
    assert found["weights"]["sha256"] == swin_dense.load(weights).weights["sha256"]
    assert [row["batch"] for row in found["passes"]] == [1, 2, 3]
    assert len({tuple(row["image_scale"]) for row in found["passes"]}) == 3
    names = {"detection": {"bbox_mAP", "segm_mAP"}, "segmentation": {"mIoU"}}[task]
    for row in found["passes"]:
        assert row["images"] == 4
        assert row["model"].keys() == row["file"].keys() == names
        assert row["seconds_per_image"].keys() == {"model", "file"}


def test_a_file_predicts_as_its_model(written, small_shapes):
    task, weights, out = written
    model, file = swin_dense.load(weights), swin_dense.load(out)
    assert file.classes == model.classes
    assert file.task is model.task
    sources = sorted(map(str, small_shapes.image_dir("val").iterdir()))
    how = {"score": 0.02} if task == "detection" else {}
    for one, other in zip(
        model.predict(sources, **how), file.predict(sources, batch=3, **how), strict=True
    ):
        if task == "detection":
            assert len(one) == len(other) > 0
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-4)
        else:
            assert (one.labels != other.labels).mean() < 1e-3


def test_the_commands_take_a_file(written, small_shapes, tmp_path, capsys):
    _, _, out = written
    images = str(small_shapes.image_dir("val"))
    assert predict.main([images, str(out), "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 4
    others = ["--precision", "bf16", "--out", str(tmp_path)]
    assert predict.main([images, str(out), *others]) == MISTAKE
    assert test.main([str(out), "--data-root", str(small_shapes.root)]) == MISTAKE
    assert "name the checkpoint that it was made of" in capsys.readouterr().err


def test_a_file_runs_on_the_processor_unless_asked(written, monkeypatch):
    _, _, out = written
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert swin_dense.load(out).device.type == "cpu"


def test_the_lines_of_the_docs_without_this_package(written, small_shapes, tmp_path, monkeypatch):
    """What docs/export.md shows finds what `load` finds in the file."""
    _, _, out = written
    photo = next(small_shapes.image_dir("val").iterdir())
    (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())  # OpenCV asks the content
    shutil.copy(out, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(
        r"```python\n(import cv2.*?)```", (ROOT / "docs/export.md").read_text(), re.DOTALL
    )
    names = {}
    exec(block, names)
    images = []
    real = sessions.Session.__call__

    def noted(self, image, size):
        images.append(image)
        return real(self, image, size)

    monkeypatch.setattr(sessions.Session, "__call__", noted)
    file = swin_dense.load("model.onnx")
    file.predict("photo.jpg")
    assert names["image"].transpose(2, 0, 1).shape == images[0].shape[1:]
    np.testing.assert_allclose(names["image"].transpose(2, 0, 1), images[0][0], atol=1e-5)
    assert len(names["found"]) == len(names["about"]["outputs"])


def coarse(images):
    """Return what the nearest of every second pixel would give."""
    whole = images[:, :, ::2, ::2].repeat(2, 2).repeat(2, 3)
    return np.ascontiguousarray(whole[:, :, : images.shape[2], : images.shape[3]])


FAULTS = {"detection": coarse, "segmentation": lambda images: images[:, ::-1].copy()}


def test_a_planted_fault_is_refused(written, small_shapes, tmp_path, monkeypatch, capsys):
    """A wrong interpolation, and swapped channels: the runtime sees other images than the model."""
    task, weights, right = written
    real, planted = sessions.Session.__call__, FAULTS[task]
    monkeypatch.setattr(exporting, "write", lambda model, out, sampling: shutil.copy(right, out))
    monkeypatch.setattr(
        sessions.Session, "__call__", lambda self, images, size: real(self, planted(images), size)
    )
    monkeypatch.setattr(certificate, "SURE", 0.02)  # a model of eight iterations is sure of nothing
    out = tmp_path / "model.onnx"
    status = export.main([str(weights), "--data-root", str(small_shapes.root), "--out", str(out)])
    assert status == FAULT
    assert "refused, and removed" in capsys.readouterr().out
    assert not out.exists()
    assert not json.loads((tmp_path / "model.onnx.refused.json").read_text())["passed"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "model.pth"], "end in .onnx"),
        (["--cfg-options", "model.test_cfg.mode=slide"], "'slide', windows that slide"),
    ],
)
def test_what_is_refused_before_a_file_is_written(trained, tmp_path, capsys, more, said):
    for package in ("onnx", "onnxruntime"):
        peer(package)
    _, config, work = trained
    if "upernet" not in config.name:
        pytest.skip("the same code for all")
    command = [str(config), str(work / "iter_8.pth"), "--no-certificate", *more]
    if "--out" not in more:
        command += ["--out", str(tmp_path / "model.onnx")]
    assert export.main(command) == MISTAKE
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
