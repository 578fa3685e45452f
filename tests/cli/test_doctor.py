"""The doctor's command: what it prints and writes, its status, and the page of all codes."""

import json

import pytest
from conftest import ROOT

from swin_dense.cli import doctor

CONFIG = "mask_rcnn_swin_nano"


def test_notes_alone_end_with_0_and_are_written(small_shapes, tmp_path, capsys):
    out = tmp_path / "found.json"
    arguments = [CONFIG, "--data-root", str(small_shapes.root), "--json", str(out)]
    assert doctor.main(arguments) == 0
    said = capsys.readouterr().out
    rows = json.loads(out.read_text())
    assert said.splitlines()[-1] == f"0 errors, 0 warnings, {len(rows)} notes"
    assert all(f"[{row['code']}]" in said for row in rows)


def test_errors_end_with_1_and_say_how_to_mend_them(small_shapes, tmp_path, capsys):
    labels = json.loads((small_shapes.root / "annotations/instances_train.json").read_text())
    labels["annotations"][0]["image_id"] = 12345
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(small_shapes.root / "images")
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(labels))
    arguments = [CONFIG, "--data-root", str(tmp_path), "--split", "train"]
    assert doctor.main(arguments) == 1
    said = capsys.readouterr().out
    assert "error [image-id-unknown]" in said
    assert "    rule: " in said
    assert "    fix:  " in said
    assert doctor.main([*arguments, "--json", "-"]) == 1
    (row,) = [r for r in json.loads(capsys.readouterr().out) if r["severity"] == "error"]
    assert (row["code"], row["count"]) == ("image-id-unknown", 1)


def test_mistakes(capsys):
    with pytest.raises(SystemExit):
        doctor.main([CONFIG, "--split", "valid"])
    assert "some of train, val, test" in capsys.readouterr().err
    assert doctor.main([CONFIG, "--data-root", "nowhere"]) == 1
    assert "there is no folder nowhere" in capsys.readouterr().out


def test_the_page_of_codes_is_up_to_date(capsys):
    with pytest.raises(SystemExit):
        doctor.main(["--codes"])
    written = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == written, "write it anew: tools/doctor.py --codes"
    assert written.count("\n| `") >= 45
