"""Evaluation from the command line: all numbers, by class, in the table and in the file."""

import json

import pytest
from conftest import ROOT, SMALL

from swin_dense.cli import compare, test
from swin_dense.datasets import shapes

COCO = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
COCO += ["AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"]


@pytest.mark.parametrize("weights", ["iter_8.pth", "weights_fp16.safetensors"])
def test_all_numbers_are_printed_and_written(trained, small_shapes, tmp_path, capsys, weights):
    task, config, work = trained
    out = tmp_path / "deep/numbers.json"
    status = test.main(
        [str(config), str(work / weights), "--data-root", str(small_shapes.root)]
        + ["--work-dir", str(tmp_path / "w"), "--out", str(out), *SMALL[:2]]
    )
    assert status == 0
    content = json.loads(out.read_text())
    printed = capsys.readouterr().out
    if task == "detection":
        there = [n for n in COCO if not n.endswith("_large")]  # no object is: no number either
        assert list(content["metrics"]) == [f"{k}_{n}" for k in ("bbox", "segm") for n in there]
        assert set(content["per_class"]) == set(shapes.CLASSES)
        assert {"bbox_AP", "segm_AP", "segm_AR_100"} <= set(content["per_class"]["star"])
        assert all(f"\n{name} " in printed for name in there)
    else:
        assert {"aAcc", "mIoU", "mAcc"} <= set(content["metrics"])
        assert set(content["per_class"]) == set(shapes.LABELS)
        assert "mIoU" in printed
    (record,) = content["weights"]
    assert (record["share"], record["random"]) == (1, {})
    assert printed.count(str(work / weights)) == 1
    assert "NaN" not in out.read_text()
    assert all(f"\n{name} " in printed for name in content["per_class"])


def test_a_run_needs_no_config_data_or_scale(trained, small_shapes, tmp_path):
    """All of them are in its checkpoint. Beside a named config, its scale is kept as well."""
    _, config, work = trained
    whole = [str(config), str(work / "iter_8.pth"), "--data-root", str(small_shapes.root)]
    contents = []
    for words in ([str(work)], [*whole, *SMALL[:2]], whole):
        out = tmp_path / f"{len(contents)}.json"
        assert test.main([*words, "--work-dir", str(tmp_path / "w"), "--out", str(out)]) == 0
        contents.append(json.loads(out.read_text()))
    for key in ("metrics", "per_class", "checkpoint"):
        assert contents[0][key] == contents[1][key] == contents[2][key]
    assert contents[0]["config"] == config.name


def test_a_report_and_its_comparison(trained, small_shapes, tmp_path, capsys):
    """The page's numbers are those of metrics.json; a run equals itself, and no other set."""
    _, config, work = trained
    out, folder = tmp_path / "n.json", tmp_path / "a/report"
    words = [str(config), str(work / "iter_8.pth"), "--data-root", str(small_shapes.root)]
    words += ["--work-dir", str(tmp_path / "w"), "--out", str(out), "--report", str(folder)]
    assert test.main([*words, *SMALL[:2]]) == 0
    told = json.loads((folder / "report.json").read_text("utf-8"))
    assert told["metrics"] == json.loads(out.read_text())["metrics"]
    assert told["speed"]["images"] == 4
    assert told["weights"]
    assert f"report: {folder / 'index.html'}" in capsys.readouterr().out
    differences = tmp_path / "differences.json"
    again = [str(folder), str(folder), "--resamples", "7", "--json", str(differences)]
    assert compare.main(again) == 0
    kinds = json.loads(differences.read_text("utf-8"))["kinds"]
    assert {row["difference"] for kind in kinds for row in kind["numbers"]} == {0}
    shown = {row["name"]: row["first"] for kind in kinds for row in kind["numbers"]}
    for name, value in told["metrics"].items():
        if value is not None:
            assert shown[name] == pytest.approx(value, abs=1e-9), name
    assert compare.main([str(folder), str(tmp_path)]) == 2
    assert "holds no records.npz" in capsys.readouterr().err


def test_options_of_a_training_are_not_dropped(trained, small_shapes, tmp_path, capsys):
    _, config, work = trained
    words = [str(config), str(work / "iter_8.pth"), "--data-root", str(small_shapes.root)]
    assert test.main([*words, "--cfg-options", "load_from=other.pth"]) == 2
    assert "what is tested is the second argument" in capsys.readouterr().err


def test_weights_that_carry_no_config(capsys):
    demo = ROOT / "demo/weights/upernet_swin_nano.safetensors"
    assert test.main([str(demo)]) == 2
    error = capsys.readouterr().err
    assert "does not carry the config it was trained with" in error
    assert "It was trained with upernet_swin_nano.py." in error
