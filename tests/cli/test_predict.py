"""Images of any source become rows on disk, each once, however often the run is started."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL
from peers import peer
from PIL import Image

from swin_dense.benchmarks.peers import reach
from swin_dense.cli import predict
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.report.journal import Journal

SCALE = SMALL[:2]
one_task = pytest.mark.parametrize("trained", ["segmentation"], indirect=True)


@pytest.fixture
def folder(tmp_path, small_shapes):
    """Four pictures, one of them cut off, two with one stem; and a file that is none."""
    folder = tmp_path / "images"
    shutil.copytree(small_shapes.image_dir("val"), folder)
    first, second, *_ = sorted(folder.iterdir())
    Image.open(first).save(first.with_suffix(".bmp"))
    second.write_bytes(second.read_bytes()[:70])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def run(trained, folder, tmp_path):
    """Runs the command on the folder, or another source, with the last checkpoint."""
    _, config, work = trained

    def run(*more, source=folder, weights="iter_8.pth"):
        arguments = [str(source), str(config), str(work / weights), "--out", str(tmp_path / "out")]
        return predict.main([*arguments, *SCALE, *more])

    return run


def rows(tmp_path):
    lines = (tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_row_for_each_image_and_a_reason_for_each_that_is_none(trained, run, tmp_path, capsys):
    assert run("--draw", "--batch-size", "2") == 1
    printed = capsys.readouterr()
    assert "skipped" in printed.err
    assert "5 images -> " in printed.out
    assert "1 could not be read" in printed.out
    found = rows(tmp_path)
    assert sorted(row["image"] for row in found) == sorted(
        str(path) for path in (tmp_path / "images").iterdir() if path.suffix != ".txt"
    )
    [failed] = [row for row in found if "error" in row]
    assert "the image is cut off" in failed["error"]
    whole = [row for row in found if "error" not in row]
    assert all((row["height"], row["width"]) == (72, 104) for row in whole)
    key = "instances" if trained[0] == "detection" else "label_map"
    assert all(key in row for row in whole)
    drawn = [row["drawn"] for row in whole]
    assert len(set(drawn)) == 4  # two pictures have one stem
    assert all(Image.open(tmp_path / "out" / name).width >= 6 * 104 for name in drawn)
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert len(about["weights sha256"]) == 64


@one_task
def test_a_run_that_was_ended_goes_on_with_what_is_left(run, folder, tmp_path, monkeypatch, capsys):
    seen = []
    looked = Predictor._look

    def look(self, group):
        seen.append(group)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return looked(self, group)

    monkeypatch.setattr(Predictor, "_look", look)
    assert run() == 130
    path = tmp_path / "out/predictions.jsonl"
    before = [row["image"] for row in rows(tmp_path) if "error" not in row]
    assert len(before) == 2
    with path.open("ab") as file:
        file.write(b'{"image": "half a row')  # as if the disk had been full
    [cut] = [row["image"] for row in rows_of_whole_lines(path) if "error" in row]
    shutil.copy(before[0], cut)  # mended: it is read now
    capsys.readouterr()
    assert run() == 0
    assert "2 images are done already" in capsys.readouterr().out
    assert sorted(row["image"] for row in rows(tmp_path)) == sorted(
        str(path) for path in folder.iterdir() if path.suffix != ".txt"
    )
    assert not any("error" in row for row in rows(tmp_path))
    assert len(seen) == 3 + 3
    assert run() == 0  # nothing is left
    assert len(rows(tmp_path)) == 5


def rows_of_whole_lines(path):
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@one_task
@pytest.mark.parametrize(
    ("more", "weights", "text"),
    [
        ([], "iter_4.pth", "were made with weights sha256 '"),
        (["--precision", "bf16"], "iter_8.pth", "with precision 'float32', this run has 'bf16'"),
        (["--draw"], "iter_8.pth", "with draw False, this run has True"),
    ],
)
def test_results_of_two_kinds_are_not_mixed(run, more, weights, text, capsys):
    run()
    capsys.readouterr()
    assert run(*more, weights=weights) == 2
    assert text in capsys.readouterr().err


@one_task
def test_frames_of_a_video_have_times_and_each_nth_is_looked_at(run, tmp_path, small_shapes):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 5, (104, 72))
    for path in [*small_shapes.image_dir("val").iterdir()] * 2:
        writer.write(np.asarray(Image.open(path).convert("RGB"))[..., ::-1])
    writer.release()
    assert run("--every", "3", source=clip) == 0
    assert [row["image"] for row in rows(tmp_path)] == [f"{clip}#{i}" for i in (0, 3, 6)]
    assert [row["seconds"] for row in rows(tmp_path)] == pytest.approx([0, 0.6, 1.2])


def test_a_table_has_the_rows(trained, run, tmp_path, capsys, monkeypatch):
    peer("pyarrow")
    table = reach("pyarrow.parquet")
    assert run("--format", "parquet") == 1
    found = table.read_table(tmp_path / "out/predictions.parquet").to_pylist()
    expected = rows(tmp_path)
    assert [row["image"] for row in found] == [row["image"] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert (row["error"], row["height"]) == (wanted.get("error"), wanted.get("height"))
        if trained[0] == "detection":
            assert row["instances"] == wanted.get("instances")
        else:
            assert row["label_map"] == wanted.get("label_map")
            areas = {one["class"]: one["area"] for one in row["classes"] or ()}
            assert areas == wanted.get("classes", {})


@one_task
def test_a_missing_pyarrow_is_told_before_the_first_image(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run("--format", "parquet") == 2
    assert "pip install '.[parquet]'" in capsys.readouterr().err


@one_task
def test_two_runs_do_not_write_into_one_folder(run, tmp_path, capsys):
    with Journal(tmp_path / "out", {}):
        assert run() == 2
        assert "out: another run is adding to it" in capsys.readouterr().err
    (tmp_path / "out/about.json").unlink()
    assert run() == 1


@one_task
def test_a_file_that_may_not_be_read_is_one_row(run, folder, tmp_path, monkeypatch):
    read = Path.read_bytes

    def refused(path):
        if path.suffix == ".bmp":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert run() == 1
    errors = [row["error"] for row in rows(tmp_path) if "error" in row]
    assert len(errors) == 2
    assert any("cannot be read (Permission denied)" in error for error in errors)


@one_task
def test_a_damaged_row_is_told(run, tmp_path, capsys):
    run()
    path = tmp_path / "out/predictions.jsonl"
    path.write_text("\n[1, 2]\n" + path.read_text())
    capsys.readouterr()
    assert run() == 2
    assert "predictions.jsonl: a row is damaged" in capsys.readouterr().err
