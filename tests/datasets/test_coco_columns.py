"""What is repaired while a file is read, because it can mean one thing only; and what is not."""

import json

import numpy as np
import pytest
from coco_sets import entry, found_in, good, square, write
from pycocotools import mask as rle

from swin_dense.datasets import coco_columns
from swin_dense.datasets.coco_file import open_coco
from swin_dense.errors import InputError


def test_a_byte_order_mark_is_passed_by(tmp_path):
    data = b"\xef\xbb\xbf" + json.dumps(good()).encode()
    found, summary = found_in(tmp_path, data)
    assert list(found) == ["byte-order-mark"]
    assert summary.notes == [found["byte-order-mark"].text]
    assert found_in(tmp_path, data)[1].describe().count("note: the file begins with") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_what_other_editors_write(tmp_path, encoding):
    found, summary = found_in(tmp_path, json.dumps(good()).encode(encoding))
    assert list(found) == ["file-not-utf-8"]
    assert summary.annotations == 3


def test_a_file_of_another_encoding_is_refused(tmp_path):
    content = good()
    content["images"][0]["file_name"] = "größe.jpg"
    data = json.dumps(content, ensure_ascii=False).encode("latin-1")
    with pytest.raises(InputError, match=r"not UTF-8.*\[file-not-json\]"):
        open_coco(write(tmp_path, data)[0])


def test_ids_with_a_fraction_are_the_whole_numbers(tmp_path):
    content = good()
    content["images"][0]["id"] = 1.0
    content["annotations"][1].update(image_id=2.0, category_id=3.0, id=2.0)
    found, _ = found_in(tmp_path, content)
    assert list(found) == ["id-with-fraction"]
    assert found["id-with-fraction"].ids == (2,)
    coco = open_coco(tmp_path / "instances.json")
    assert coco.image_ids == [1, 2]
    assert [type(number) for number in (*coco.image_ids, coco.id_of(1))] == [int] * 3
    assert coco.image.tolist() == [0, 1, 1]


def test_numbers_and_texts_are_matched_where_they_can_mean_one_thing_only(tmp_path):
    content = good()
    content["annotations"][0].update(image_id="1", category_id="7")
    content["categories"][1]["id"] = "3"
    found, summary = found_in(tmp_path, content)
    assert list(found) == ["id-types-differ"]
    assert found["id-types-differ"].ids == (1, 2)
    assert summary.objects == {"dog": 2, "cat": 1}
    content["annotations"][0].update(image_id="01")
    assert "image-id-unknown" in found_in(tmp_path, content)[0]


@pytest.mark.parametrize("ids", [(2**40, 2**63 - 1, 5), (2**70, 1, 2), ("a", "b", 3)])
def test_ids_of_any_size_or_kind(tmp_path, ids):
    content = good()
    for row, number in zip(content["annotations"], ids, strict=True):
        row["id"] = number
    path, _ = write(tmp_path, content)
    coco = open_coco(path)
    assert [coco.id_of(i) for i in range(3)] == list(ids)


def test_area_and_iscrowd_may_be_absent(tmp_path):
    content = good()
    runs = {"counts": [490, 400, 2182], "size": [48, 64]}
    content["annotations"] = [
        entry(1, 1, 7, segmentation=[square(10, 10, 15), square(40, 20, 5)]),
        entry(2, 2, 3, segmentation=runs),
        entry(3, 2, 7, left=30, segmentation=[]),
    ]
    for row in content["annotations"]:
        row.pop("area")
    content["annotations"][0].pop("iscrowd")
    content["annotations"][1]["area"] = None
    found, _ = found_in(tmp_path, content, need_masks=False)
    assert found["area-absent"].ids == (1, 2, 3)
    assert found["iscrowd-absent"].ids == (1,)
    assert open_coco(tmp_path / "instances.json").area.tolist() == [15**2 + 5**2, 400, 20 * 20]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_bytes_written_as_text_are_read_without_the_quotes(tmp_path, quote):
    mask = np.zeros((48, 64), np.uint8, order="F")
    mask[10:30, 10:30] = 1
    counts = rle.encode(mask)["counts"]
    written = "b" + quote + repr(counts)[2:-1] + quote
    content = good()
    content["annotations"][1]["segmentation"] = {"size": [48, 64], "counts": written}
    found, summary = found_in(tmp_path, content)
    assert list(found) == ["counts-bytes-literal"]
    assert summary.warnings == [found["counts-bytes-literal"].text]
    read = open_coco(tmp_path / "instances.json").segmentation(1)
    assert (rle.decode(read) == mask).all()


def test_polygons_of_two_points_are_left_out_of_the_mask(tmp_path):
    content = good()
    stray, odd = [10.0, 10.0, 13.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    content["annotations"][0]["segmentation"] = [stray, square(10, 10), odd]
    content["annotations"][1]["segmentation"] = [stray]
    found, _ = found_in(tmp_path, content)
    assert found["polygon-part-short"].ids == (1,)
    assert found["mask-unusable"].ids == (2,)
    coco = open_coco(tmp_path / "instances.json")
    read = [coco.segmentation(i) for i in range(3)]
    assert read == [[square(10, 10)], None, [square(35, 10)]]


@pytest.mark.parametrize(
    ("chunk", "processes"), [(1, 1), (2, 3), (5, 1), (5, 2), (1000, 1), (1000, 4)]
)
def test_an_odd_entry_is_read_like_its_neighbours(tmp_path, monkeypatch, chunk, processes):
    """Whatever the chunk: entries that need the slow way lie among others."""
    monkeypatch.setattr(coco_columns, "CHUNK", chunk)
    monkeypatch.setattr(coco_columns, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(coco_columns.forks, "cores", lambda: processes)
    content = good()
    content["annotations"] = [entry(i, 1 + i % 2, 7, left=i) for i in range(1, 14)]
    rows = content["annotations"]
    rows[2].update(iscrowd=True)
    rows[4].update(segmentation=[square(5, 10), [1, 2, 3, "4", 5, 6]])
    rows[6].update(segmentation={"size": [48, 64], "counts": [3072.0]})
    rows[8].update(bbox="none")
    rows[9].update(segmentation=[[], square(10, 10)])
    path, _ = write(tmp_path, content)
    coco = open_coco(path)
    assert [f.kind.code for f in coco.findings] == ["field-wrong", "polygon-part-short"]
    assert [coco.id_of(i) for i in range(12)] == [*range(1, 9), *range(10, 14)]
    assert coco.crowd.tolist() == [i == 2 for i in range(12)]
    assert coco.box[:, 0].tolist() == [*range(1, 9), *range(10, 14)]
    assert [coco.segmentation(i) for i in (3, 4, 5, 6, 7, 8, 11)] == [
        [square(4, 10)],
        None,
        [square(6, 10)],
        {"size": [48, 64], "counts": [3072]},
        [square(8, 10)],
        [square(10, 10)],
        [square(13, 10)],
    ]
    assert coco.odd_masks == {4: repr([square(5, 10), [1, 2, 3, "4", 5, 6]])}


def test_divided_among_processes_nothing_is_told_otherwise(tmp_path, monkeypatch):
    """What is repaired, counted or unknown comes from every share, in the order of the file."""
    content = good()
    content["annotations"] = rows = [entry(i, 1 + i % 2, 7, left=i) for i in range(1, 14)]
    rows.insert(3, "bare")
    for i in (1, 8, 11):
        rows[i]["image_id"] = f"{i % 2 + 1}"
    rows[2]["image_id"] = rows[9]["category_id"] = rows[12]["image_id"] = 99
    for i in (4, 12):
        del rows[i]["area"], rows[i]["iscrowd"]
    rows[6].update(bbox=[1, 2, 3])
    rows[10].update(bbox=[1, 2, 3, 4, 5])
    rows[7].update(segmentation={"size": [48, 64], "counts": "PQ"})
    rows[13].update(segmentation={"size": [48, 64], "counts": "b'PQ'"})
    path, _ = write(tmp_path, content)
    data = path.read_bytes()
    one = coco_columns.read_columns(data, path)
    monkeypatch.setattr(coco_columns, "WORTH_A_PROCESS", 1)
    for processes in (2, 3, 5):
        monkeypatch.setattr(coco_columns.forks, "cores", lambda: processes)  # noqa: B023
        several = coco_columns.read_columns(data, path)
        assert several.arrays.keys() == one.arrays.keys()
        for name, values in one.arrays.items():
            assert several.arrays[name].dtype == values.dtype
            assert (several.arrays[name] == values).all(), name
        assert [(f.kind, f.text, f.ids) for f in several.findings] == [
            (f.kind, f.text, f.ids) for f in one.findings
        ]
        assert several.unknown == one.unknown == {"image_id": [99, 99], "category_id": [99]}
        assert several.odd_masks == one.odd_masks


@pytest.mark.parametrize(
    ("edit", "ids"),
    [
        (lambda c: c["annotations"][1].update(bbox=[1, 2, float("nan"), 4]), (2,)),
        (lambda c: c["annotations"][2].update(area=float("inf")), (3,)),
        (lambda c: c["images"][1].update(width=float("-inf")), (2,)),
    ],
)
def test_what_is_not_finite_has_its_own_code(tmp_path, edit, ids):
    content = good()
    edit(content)
    found, _ = found_in(tmp_path, content)
    assert found["number-not-finite"].ids == ids


def test_no_annotations_and_no_images(tmp_path):
    content = good() | {"annotations": []}
    found, _ = found_in(tmp_path, content)
    assert found["nothing-to-train-on"].what.startswith("0 of 2 images kept: 2 have no annotation")
    found, _ = found_in(tmp_path, content | {"images": []})
    assert "images-none" in found
