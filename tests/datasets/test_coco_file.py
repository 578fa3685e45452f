"""A file is read once: the columns equal the JSON, and other processes map what one has read."""

import copy
import json
import multiprocessing
import os
import pickle
import random

import numpy as np
import pytest
from coco_sets import entry, found_in, good, write
from pycocotools import mask as rle

from swin_dense.datasets import coco_file, coco_layout, column_cache
from swin_dense.datasets.coco_file import open_coco
from swin_dense.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, in which files of any size are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(coco_file, "CACHED", 0)
    monkeypatch.setattr(coco_file, "_remembered", type(coco_file._remembered)())
    return tmp_path / "cache" / "swin_dense" / "annotations"


def random_set(seed=0):
    """Objects of every kind of mask, in no order, with fields nobody asked for."""
    draw = random.Random(seed)
    images = [
        {
            "id": f"no {i}" if i % 5 == 0 else i,
            "file_name": f"{i}.jpg",
            "width": 50 + i,
            "height": 40,
        }
        for i in range(20)
    ]
    rows = []
    for number in range(200):
        image = draw.choice(images)
        size = [image["height"], image["width"]]
        runs = [draw.randint(0, 30) for _ in range(7)]
        runs.append(size[0] * size[1] - sum(runs))
        packed = rle.frPyObjects({"size": size, "counts": runs}, *size)["counts"].decode()
        mask = draw.choice(
            [
                [[draw.uniform(0, 40) for _ in range(2 * n)] for n in range(3, draw.randint(4, 7))],
                {"size": size, "counts": runs},
                {"size": size, "counts": packed},
                None,
                [],
            ]
        )
        row = entry(number, image["id"], draw.choice([3, 7]), segmentation=mask, extra={"a": [1]})
        row["bbox"] = [draw.uniform(0, 20), draw.randint(0, 9), draw.uniform(1, 9), 7]
        row |= draw.choice([{}, {"iscrowd": 1}, {"ignore": True}])
        rows.append(row)
    return good() | {"images": images, "annotations": rows, "info": None}


def require_equal(coco, content):
    assert coco.image_ids == [image["id"] for image in content["images"]]
    assert coco.file_names == [image["file_name"] for image in content["images"]]
    assert coco.heights.tolist() == [image["height"] for image in content["images"]]
    assert coco.widths.tolist() == [image["width"] for image in content["images"]]
    assert list(coco.categories.items()) == [(c["id"], c["name"]) for c in content["categories"]]
    assert len(coco.ids) == len(content["annotations"])
    for i, row in enumerate(content["annotations"]):
        assert coco.id_of(i) == row["id"]
        assert coco.image_ids[coco.image[i]] == row["image_id"]
        assert coco.category_ids[coco.category[i]] == row["category_id"]
        assert coco.box[i].tolist() == row["bbox"]
        assert coco.area[i] == row["area"]
        assert (coco.crowd[i], coco.ignore[i]) == (row["iscrowd"], row.get("ignore", False))
        assert coco.segmentation(i) == (row["segmentation"] or None)


def test_columns_equal_the_file(tmp_path):
    content = random_set()
    path, _ = write(tmp_path, content)
    coco = open_coco(path)
    require_equal(coco, content)
    assert open_coco(path) is coco
    assert copy.deepcopy(coco) is coco
    require_equal(pickle.loads(pickle.dumps(coco)), content)
    whole = coco.as_dict()
    assert whole["images"] == content["images"]
    assert [row["bbox"] for row in whole["annotations"]] == coco.box.tolist()


def test_from_the_cache_too(tmp_path, cache, monkeypatch):
    content = random_set(1)
    path, _ = write(tmp_path, content)
    require_equal(open_coco(path), content)
    kept = list(cache.glob("*.columns"))
    assert len(kept) == 1
    coco_file._remembered.clear()
    monkeypatch.setattr(coco_file, "read_columns", None)  # nothing is parsed again
    coco = open_coco(path)
    require_equal(coco, content)
    assert not coco.box.flags.writeable
    sent = pickle.dumps(coco)
    assert len(sent) < 1000
    require_equal(pickle.loads(sent), content)


def test_another_content_is_another_file(tmp_path, cache):
    path, _ = write(tmp_path, good())
    assert open_coco(path).box[0].tolist() == [10, 10, 20, 20]
    path.write_text(path.read_text().replace("[10, 10, 20, 20]", "[11, 10, 20, 20]"))
    assert open_coco(path).box[0].tolist() == [11, 10, 20, 20]
    assert len(list(cache.glob("*.columns"))) == 2


def test_a_file_that_did_not_change_is_not_even_hashed(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(coco_file, "SETTLED", -1e9)  # as if the file were old
    path, _ = write(tmp_path, good())
    open_coco(path)
    coco_file._remembered.clear()
    monkeypatch.setattr(coco_file, "_read", None)
    assert len(open_coco(path)) == 2
    coco_file._remembered.clear()
    os.utime(path, ns=(0, 0))
    with pytest.raises(TypeError):  # it is hashed again
        open_coco(path)


@pytest.mark.parametrize("spoilt", [b"", b"half", None])
def test_a_damaged_cache_is_made_anew(tmp_path, cache, spoilt):
    content = random_set(2)
    path, _ = write(tmp_path, content)
    open_coco(path)
    (kept,) = cache.glob("*.columns")
    kept.write_bytes(kept.read_bytes()[:-40] if spoilt is None else spoilt)
    coco_file._remembered.clear()
    require_equal(open_coco(path), content)
    coco_file._remembered.clear()
    assert column_cache.load(kept) is not None


def test_where_nothing_can_be_written_it_is_kept_in_memory(tmp_path, cache, monkeypatch):
    content = random_set(3)
    path, _ = write(tmp_path, content)
    (tmp_path / "cache").write_text("a file, not a folder")
    coco = open_coco(path)
    assert coco.cached is None
    require_equal(coco, content)
    require_equal(pickle.loads(pickle.dumps(coco)), content)
    coco_file._remembered.clear()
    monkeypatch.setattr(column_cache, "folder", lambda: None)  # a user without a home
    require_equal(open_coco(path), content)


def _opened(path, barrier, answers):
    coco_file.CACHED = 0
    barrier.wait()
    answers.put(open_coco(path).box.sum())


def test_processes_that_start_at_once_get_the_same(tmp_path, cache):
    path, _ = write(tmp_path, random_set(4))
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(4), context.Queue()
    started = [context.Process(target=_opened, args=(path, barrier, answers)) for _ in range(4)]
    for process in started:
        process.start()
    found = {answers.get(timeout=60) for _ in started}
    for process in started:
        process.join()
    assert found == {open_coco(path).box.sum()}
    assert len(list(cache.glob("*.columns"))) == 1
    assert not list(cache.glob(".new-*"))


def test_the_verdict_is_kept_with_the_columns_but_images_are_asked_for_again(
    tmp_path, cache, monkeypatch
):
    content = good()
    content["annotations"][1]["area"] = -1
    first, summary = found_in(tmp_path, content)
    monkeypatch.setattr(coco_layout, "_judge", None)
    again, other = found_in(tmp_path, content)
    assert (again, other) == (first, summary)
    (tmp_path / "images" / "one.jpg").unlink()
    found, _ = found_in(tmp_path, content, names=())
    assert found.keys() == first.keys() | {"image-absent"}
    with pytest.raises(TypeError):  # other arguments are judged anew
        found_in(tmp_path, content, min_side=30)


def test_unused_columns_are_removed_in_time(tmp_path, cache):
    path, _ = write(tmp_path, good())
    open_coco(path)
    (kept,) = cache.glob("*.columns")
    os.utime(kept, (0, 0))
    path, _ = write(tmp_path, random_set(5))
    open_coco(path)
    assert not kept.exists()
    assert len(list(cache.glob("*.columns"))) == 1


def test_columns_of_any_shape_come_back(tmp_path):
    arrays = {
        "none": np.zeros((0, 4)),
        "flags": np.array([True, False, True]),
        "table": np.arange(35, dtype=np.int32).reshape(5, 7),
    }
    assert column_cache.save(tmp_path / "a", arrays, {"x": [1, "ü"]})
    found, more = column_cache.load(tmp_path / "a")
    assert more == {"x": [1, "ü"]}
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)
    assert column_cache.load(tmp_path / "b") is None


def test_a_file_with_wrong_fields_is_opened_and_says_so(tmp_path, cache):
    content = good()
    content["annotations"][1].pop("bbox")
    path, _ = write(tmp_path, content)
    for _ in range(2):
        coco = open_coco(path)
        assert [f.kind.code for f in coco.findings] == ["field-absent"]
        assert len(coco.ids) == 2
        coco_file._remembered.clear()
    with pytest.raises(InputError, match=r"1 of 3 annotations lack 'bbox'.*\[field-absent\]"):
        coco_layout.check(path, tmp_path / "images")
    assert json.loads(path.read_text()) == content
