"""The notebook runs from its first cell to its last, and is kept without what it printed."""

import json

from conftest import ROOT

NOTEBOOK = json.loads((ROOT / "demo/tour.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs():
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_notebook_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, text in enumerate(CODE):
        exec(compile(text, f"cell {number}", "exec"), names)
    printed = capfd.readouterr().out
    assert "0 errors" in printed  # the doctor's
    assert names["certificate"]["passed"]
    result, again = names["result"], names["again"]
    assert len(result) > 1
    assert list(result.labels) == list(again.labels)
    assert result.draw().ndim == 3
