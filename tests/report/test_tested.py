"""The page of an evaluation: whole, without network, escaped, with the numbers of report.json."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_cases import NAMES, a_set, with_pictures

from swin_dense.report import maps, page, records, tested

EMPTY = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Collects addresses, texts of cells and ids; each tag must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.shown = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.addresses += [values[n] for n in ("src", "href", "srcset", "action") if n in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            assert values["alt"]
        if tag == "svg":
            assert values["aria-label"]
            assert values["role"] == "img"
        if tag not in EMPTY:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown += data
        if self.cells and ({"td", "th"} & set(self.open)):
            self.cells[-1] += data


def written(folder, found, **changes):
    about = {"config": "a<b>&c", "task": "t", "checkpoint": '"w".pth', "classes": NAMES}
    known = {"numbers": {"bbox_AP": 0.1234, "bbox_AP50": float("nan")}, "per_class": {}, **changes}
    path = tested.write(folder, tested.Evaluation(about, found=[found], **known))
    text = path.read_text("utf-8")
    return text, Reader(text), json.loads((folder / "report.json").read_text("utf-8"))


def self_contained(text: str, reader: Reader) -> bool:
    inside = all(address.startswith(("data:", "#")) for address in reader.addresses)
    anchors = [address[1:] for address in reader.addresses if address.startswith("#")]
    assert set(anchors) <= set(reader.ids)
    assert len(set(reader.ids)) == len(reader.ids)
    return inside and "script" not in reader.tags and "url(" not in text and "@import" not in text


def test_objects(tmp_path):
    dataset, found = a_set(0)
    text, reader, told = written(tmp_path, with_pictures(tmp_path, dataset, found))
    assert self_contained(text, reader)
    assert "b" not in reader.tags  # of the class "cat & <b>dog</b>" and the config "a<b>&c"
    assert all(name in reader.shown for name in NAMES[:2])
    worst = told["detections"]["worst"]
    assert worst
    assert all(row["image"] in reader.shown for row in worst)
    kind = told["detections"]["kinds"]["bbox"]
    assert "0.123" in reader.cells
    assert told["metrics"] == {"bbox_AP": 0.1234, "bbox_AP50": None}
    for row in kind["per_class"].values():
        for value in (row.get("AP"), row.get("F1")):
            assert value is None or f"{value:.3f}" in reader.cells
    for name, value in kind["errors"]["delta_ap"].items():
        assert f"{value:.3f}" in reader.cells, name
    # Each object is in a row of the confusion matrix once; crowds are not.
    counted = sum(count for row, _, count in kind["confusion"]["counts"] if row < 3)
    assert counted == sum(not row["iscrowd"] for row in dataset["annotations"])
    histogram = sum(row["count"] for row in kind["calibration"]["bins"])
    assert histogram == kind["calibration"]["num_detections"] > 0
    assert records.read(tmp_path)[0].kind == "bbox"


def test_a_set_without_objects_or_detections(tmp_path):
    dataset, found = a_set(0)
    for rows, some in (([], found[:3]), (dataset["annotations"], [])):
        given = with_pictures(tmp_path, {**dataset, "annotations": rows}, some)
        text, reader, _ = written(tmp_path, given)
        assert self_contained(text, reader)


def test_label_maps(tmp_path):
    path = tmp_path / "一 <i>.png"
    Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(path)
    truth = np.zeros((7, 9), np.uint8)
    truth[:, 4:], truth[0] = 1, 255
    guess = np.zeros((7, 9), np.uint8)
    shared, true, given = np.array([[24, 0, 0]]), np.array([[24, 30, 0]]), np.array([[54, 0, 0]])
    matched = records.Pixels(NAMES, ("一 <i>.png",), shared, given, true)
    confusion = np.array([[24, 0, 0], [30, 0, 0], [0, 0, 0]])
    found = maps.FoundMaps(matched, confusion, [maps.WorstMap(path.name, path, truth, guess)])
    text, reader, told = written(tmp_path, found, numbers={"mIoU": 22.22})
    assert self_contained(text, reader)
    assert "i" in reader.tags
    assert "一 <i>.png" in reader.shown
    rows = told["label_maps"]["classes"]
    assert rows[NAMES[0]]["IoU"] == pytest.approx(100 * 24 / 54)
    assert rows[NAMES[2]]["IoU"] is None
    assert "44.44" in reader.cells
    assert "55.6% of the pixels differ" in reader.shown
    assert told["label_maps"]["worst"][0]["mIoU"] == pytest.approx(100 * 24 / 54 / 2)


def test_segments(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((7, 9, 3), np.uint8)).save(path)
    counts = np.zeros((1, 3, 4))
    counts[0, 0], counts[0, 1] = (0.8, 1, 0, 0), (0, 0, 1, 2)
    matched = records.Segments(NAMES, ("x.png",), counts, np.array([True, False, False]))
    ids = np.zeros((7, 9), int)
    ids[2:5, 3:7] = 5
    side = ids, [{"id": 5, "class": NAMES[0]}]
    found = maps.FoundSegments(matched, [maps.WorstSegments("x.png", path, side, side)])
    text, reader, told = written(tmp_path, found, numbers={"PQ": 40.0})
    assert self_contained(text, reader)
    assert told["segments"]["classes"][NAMES[0]]["PQ"] == pytest.approx(80)
    assert {"80.00", "0.00", "40.00"} <= set(reader.cells)
    assert "PQ 40.0" in reader.shown
    assert told["segments"]["classes"][NAMES[2]]["PQ"] is None


def test_text_is_escaped_once():
    assert page.text("<&\"'") == "&lt;&amp;&quot;&#x27;"
    assert page.text(page.text("<")) == "&lt;"
    assert [page.number(v) for v in (None, float("nan"), -1, 0.5)] == ["-", "-", "-", "0.500"]
