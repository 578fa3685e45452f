"""The course of a training, from mmengine's scalars."""

import json

import pytest
from PIL import Image

from swin_dense.report import curves


def log(folder, run, rows, end=""):
    path = folder / run / "vis_data/scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + end)


def trained(step, loss, **more):
    return {
        "lr": 0.1,
        "loss": loss,
        "time": 0.5,
        "data_time": 0.1,
        "iter": step,
        "step": step,
    } | more


def test_a_resumed_run_replaces_what_came_after_its_start(tmp_path):
    log(
        tmp_path,
        "20260101_000000",
        [trained(i, 9.0) for i in (10, 20, 30)] + [{"mIoU": 1, "step": 30}],
    )
    log(tmp_path, "20260102_000000", [trained(i, 5.0) for i in (20, 30)], end='\n{"lr": 0.')
    rows = curves.read(tmp_path)
    assert [(row["iter"], row["loss"]) for row in rows] == [(10, 9.0), (20, 5.0), (30, 5.0)]


def test_an_evaluation_of_epochs_stands_at_the_last_iteration_of_its_epoch(tmp_path):
    rows = [trained(7, 2.0, epoch=1), trained(14, 1.0, epoch=2), {"coco/bbox_mAP": 0.25, "step": 2}]
    log(tmp_path, "a", rows)
    shown = {panel.title: panel.lines for panel in curves.panels(curves.read(tmp_path))}
    x, y = shown["Evaluation"]["coco/bbox_mAP"]
    assert (x.tolist(), y.tolist()) == ([14], [0.25])
    assert shown["Loss"]["loss"][1].tolist() == [2.0, 1.0]
    assert set(shown["Time of an iteration"]) == {"iteration", "waiting for data"}


def test_picture_and_page(tmp_path):
    rows = [trained(i, 1 / i, **{"decode.<loss>": 1.0}) for i in (1, 2, 3)]
    log(tmp_path, "a", [*rows, {"coco/bbox_mAP": 0.25, "step": 3}])
    path = curves.write(tmp_path, "<me>")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
    text = path.read_text("utf-8")
    assert text.count("<polyline") == 6
    assert text.count("<circle") == 1  # one evaluation is a dot
    assert "&lt;me&gt;" in text
    assert "3 iterations" in text


@pytest.mark.parametrize("rows", [[], [trained(1, float("nan"))]])
def test_little_was_logged(tmp_path, rows):
    log(tmp_path, "a", rows)
    assert "training" in curves.write(tmp_path, "x").read_text("utf-8")
