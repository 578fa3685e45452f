"""Every config has the size its authors state, or says why not; the page is up to date."""

import functools
import json
import math
import os
import pickle
import re

import pytest
import torch
from conftest import ROOT
from mmengine.registry import MODELS
from peers import peer_of

from swin_dense.cli import model_zoo
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import config as configs
from swin_dense.report import zoo

STATED = json.loads(model_zoo.STATED.read_text(encoding="utf-8"))
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SIZES = ("nano", "m", "t", "s", "b", "l", "h", "xl", "g", "22k", "1x", "lrf", "srf")


def smallest_of_each_kind():
    """One config for each pair of a head and a backbone: counting all of them takes minutes."""
    kinds = {}
    for name in NAMES:
        words = name.split("_")
        size = min((SIZES.index(word) for word in words if word in SIZES), default=0)
        kind = tuple(word for word in words if word not in SIZES)
        kinds.setdefault(kind, []).append((size, len(words), name))
    return {min(names)[-1] for names in kinds.values()}


FEW = smallest_of_each_kind()
EACH = [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in NAMES]
COUNTED = model_zoo.row  # tests put the fixture below in its place


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """Gives a config's row; what one process of a test run counted, in seconds, serves all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "counted"
    folder.mkdir(exist_ok=True)

    @functools.cache
    def found(name):
        peer_of(ROOT / f"configs/{name}.py")
        kept = folder / name
        if not kept.exists():
            written = folder / f"{name}.{os.getpid()}"
            written.write_bytes(
                pickle.dumps(COUNTED(ROOT / "configs" / f"{name}.py", STATED.get(name, {})))
            )
            written.replace(kept)  # whole at once, as another process may read it
        return pickle.loads(kept.read_bytes())

    return found


@pytest.mark.parametrize("name", EACH)
def test_a_config_has_the_size_its_authors_state(name, row):
    """Parameters within 1 %, FLOPs within 3 %; the page says so."""
    assert zoo.problems([row(name)]) == []
    assert row(name).parameters > 1e6
    assert row(name).flops > 1e9
    on_page = model_zoo.PAGE.read_text(encoding="utf-8").splitlines()
    (line,) = (x for x in zoo.page([row(name)], "").splitlines() if x.startswith(f"| [{name}]"))
    assert line in on_page


def test_the_page_has_every_config_once():
    found = re.findall(r"^\| \[(\w+)\]", model_zoo.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(found) == NAMES


@pytest.mark.slow
def test_the_page_is_up_to_date(row, monkeypatch, capsys):
    monkeypatch.setattr(model_zoo, "row", lambda path, stated: row(path.stem))
    assert model_zoo.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_fails_and_is_written_anew(row, monkeypatch, capsys, tmp_path):
    few = ("mask_rcnn_swin_t", "upernet_swin_nano")
    monkeypatch.setattr(model_zoo, "row", lambda path, stated: row(path.stem))
    monkeypatch.setattr(model_zoo, "rows", lambda: [row(name) for name in few])
    page = tmp_path / "zoo.md"
    monkeypatch.setattr(model_zoo, "PAGE", page)
    for stale in ("", "no table"):
        page.write_text(stale)
        assert model_zoo.main(["--check"]) == 2
        assert "is stale. Write it anew with tools/model_zoo.py" in capsys.readouterr().err
    assert model_zoo.main([]) == 0
    assert model_zoo.main(["--check"]) == 0
    assert all(words in page.read_text() for words in ("Mask R-CNN, Swin-T", "Built-in shapes"))


def test_an_installed_package_has_no_page(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(model_zoo, "STATED", tmp_path / "docs/model_zoo.json")
    assert model_zoo.main([]) == 2
    said = capsys.readouterr().err
    assert f"there is no {tmp_path}/docs/model_zoo.json: the page belongs to a checkout" in said


def test_every_statement_is_about_a_config(monkeypatch, tmp_path):
    wrong = tmp_path / "stated.json"
    wrong.write_text(json.dumps({"mask_rcnn_swin_tt": {}}))
    monkeypatch.setattr(model_zoo, "STATED", wrong)
    with pytest.raises(
        InputError, match=r"no config 'mask_rcnn_swin_tt'.* Did you mean 'mask_rcnn"
    ):
        model_zoo.rows()


@pytest.mark.parametrize("name", sorted(name for name in STATED if "ours" in STATED[name]))
def test_our_results_are_those_of_the_file(name, row):
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


SUM = re.compile(r": ([\d.]+(?: \+ [\d.]+)+) = ([\d.]+) G")
SUMS = {
    n: found.groups() for n in NAMES if (found := SUM.search(STATED.get(n, {}).get("differs", "")))
}


def padding(name, height, width):
    """Multiply-adds of projecting, to q, k, v and back, the tokens that only fill up windows."""
    stated, total = configs.load(ROOT / f"configs/{name}.py").model.backbone, 0
    with torch.device("meta"):
        backbone = MODELS.build(stated)
    window, side = stated.get("window_size", 7), (height // 4, width // 4)
    for stage, depth in enumerate(backbone.depths):
        filled = math.prod(window * math.ceil(tokens / window) for tokens in side)
        channels = backbone.embed_dim * 2**stage
        total += depth * (filled - math.prod(side)) * 4 * channels**2
        side = tuple(math.ceil(tokens / 2) for tokens in side)
    return total


@pytest.mark.parametrize("name", SUMS)
def test_the_arithmetic_of_a_difference_holds(name, row):
    """It starts from our count, adds up what it names, and arrives at theirs."""
    terms, total = SUMS[name]
    terms = [float(term) for term in terms.split(" + ")]
    height, width = STATED[name]["shape"]
    each = [row(name).flops, padding(name, height, width), 100 * 150 * height * width]
    assert terms == pytest.approx([term / 1e9 for term in each[: len(terms)]], abs=0.06)
    assert sum(terms) == pytest.approx(float(total), abs=0.11)
    assert float(total) == pytest.approx(STATED[name]["flops"], rel=zoo.FLOPS_AGREE)


def test_every_sum_is_found():
    told = [stated.get("differs", "") for stated in STATED.values()]
    assert len(SUMS) == sum(" = " in text and "M numbers" not in text for text in told) == 8


def test_what_a_config_says_of_its_authors_has_a_row():
    for name in NAMES:
        said = re.search(r"^Authors +\d", (ROOT / f"configs/{name}.py").read_text(), re.MULTILINE)
        # A number at several scales alone is a note: results of the page are at one scale.
        assert not said or STATED[name].get("results") or said[0].split()[1] in STATED[name]["note"]


def test_rows_say_what_a_config_is(row):
    found = row("mask_rcnn_swin_t")
    assert found.group == "COCO, instances"
    assert found.model == "Mask R-CNN, Swin-T, 36 epochs multi-scale"
    assert found.start == "ImageNet-1K"
    assert row("mask2former_swin_t_panoptic").group == "COCO, panoptic"
    assert row("dino_swin_t").group == "COCO, boxes"
    assert row("upernet_swin_t").group == "ADE20K, semantic segmentation"
    assert row("upernet_swin_nano").group == "Built-in shapes"
    assert row("mask2former_swin_b_ade20k").counted == "640x640"
