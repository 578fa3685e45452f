"""Every config has the size its authors state, or says why not; the page is up to date."""

import functools
import json
import re

import pytest
from conftest import ROOT

from swin_dense.cli import model_zoo
from swin_dense.errors import InputError
from swin_dense.report import zoo

STATED = json.loads(model_zoo.STATED.read_text(encoding="utf-8"))
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@functools.cache
def row(name):
    """Counted once for all tests; a second or two."""
    return model_zoo.row(ROOT / f"configs/{name}.py", STATED.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_the_size_its_authors_state(name):
    """Parameters within 1 %, FLOPs within 3 %."""
    assert zoo.problems([row(name)]) == []
    assert row(name).parameters > 1e6
    assert row(name).flops > 1e9


def test_the_page_is_up_to_date(monkeypatch, capsys):
    monkeypatch.setattr(model_zoo, "row", lambda path, stated: row(path.stem))
    assert model_zoo.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_fails_and_is_written_anew(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(model_zoo, "row", lambda path, stated: row(path.stem))
    page = tmp_path / "zoo.md"
    page.write_text(model_zoo.PAGE.read_text(encoding="utf-8").replace("48", "49"))
    monkeypatch.setattr(model_zoo, "PAGE", page)
    assert model_zoo.main(["--check"]) == 2
    assert "is stale. Write it anew with tools/model_zoo.py" in capsys.readouterr().err
    assert model_zoo.main([]) == 0
    assert model_zoo.main(["--check"]) == 0
    assert len(page.read_text().splitlines()) > len(NAMES)


def test_every_statement_is_about_a_config(monkeypatch, tmp_path):
    wrong = tmp_path / "stated.json"
    wrong.write_text(json.dumps({"mask_rcnn_swin_tt": {}}))
    monkeypatch.setattr(model_zoo, "STATED", wrong)
    with pytest.raises(
        InputError, match=r"no config 'mask_rcnn_swin_tt'.* Did you mean 'mask_rcnn"
    ):
        model_zoo.rows()


@pytest.mark.parametrize("name", sorted(name for name in STATED if "ours" in STATED[name]))
def test_our_results_are_those_of_the_file(name):
    metrics = json.loads((ROOT / STATED[name]["ours"]).read_text())["metrics"]
    found = row(name).results
    assert found
    for title, key, factor in (
        ("box AP", "bbox_AP", 100),
        ("mask AP", "segm_AP", 100),
        ("mIoU", "mIoU", 1),
    ):
        assert found.get(title) == (
            pytest.approx(factor * metrics[key]) if key in metrics else None
        )


SUMS = sorted(name for name in STATED if " + " in STATED[name].get("differs", ""))


@pytest.mark.parametrize(
    "name", [n for n in SUMS if re.search(r": [\d.]+ \+", STATED[n]["differs"])]
)
def test_the_arithmetic_of_a_difference_holds(name):
    """It starts from our count, adds up, and arrives at theirs."""
    terms, total = re.search(
        r": ([\d.]+(?: \+ [\d.]+)+) = ([\d.]+) G", STATED[name]["differs"]
    ).groups()
    terms = [float(term) for term in terms.split(" + ")]
    assert terms[0] == pytest.approx(row(name).flops / 1e9, abs=0.06)
    assert sum(terms) == pytest.approx(float(total), abs=0.11)
    assert float(total) == pytest.approx(STATED[name]["flops"], rel=zoo.FLOPS_AGREE)


def test_what_a_config_says_of_its_authors_has_a_row():
    for name in NAMES:
        said = re.search(r"^Authors +\d", (ROOT / f"configs/{name}.py").read_text(), re.MULTILINE)
        assert not said or STATED[name]["results"], name


def test_rows_say_what_a_config_is():
    found = row("mask_rcnn_swin_t")
    assert found.group == "COCO, instances"
    assert found.model == "Mask R-CNN, Swin-T, 36 epochs multi-scale"
    assert found.start == "ImageNet-1K"
    assert row("mask2former_swin_t_panoptic").group == "COCO, panoptic"
    assert row("dino_swin_t").group == "COCO, boxes"
    assert row("upernet_swin_t").group == "ADE20K, semantic segmentation"
    assert row("upernet_swin_nano").group == "Built-in shapes"
    assert row("mask2former_swin_b_ade20k").counted == "640x640"
