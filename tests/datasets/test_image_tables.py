"""A table of images is a row of pictures: paths, or whole files with names, read in any order."""

import io
import pickle

import numpy as np
import pytest
from peers import peer
from PIL import Image

from swin_dense.benchmarks.peers import reach
from swin_dense.datasets import sources
from swin_dense.errors import InputError

COUNT = 40


def file_of(grey):
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (grey, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def write(path, rows, **how):
    pyarrow = peer("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    reach("pyarrow.parquet").write_table(table, path, **how)
    return path


def reds(pictures):
    return [int(picture.read()[0, 0, 0]) for picture in pictures]


def test_paths_are_looked_up_from_the_folder_of_the_table(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/a.png", "b.png"):
        (tmp_path / name).write_bytes(file_of(len(name)))
    rows = [{"path": "in/a.png", "x": 1}, {"path": str(tmp_path / "b.png"), "x": 2}]
    rows += [{"path": None, "x": 3}, {"path": "s3://host/c.png", "x": 4}]
    row = sources.find(write(tmp_path / "images.parquet", rows))
    assert (row.count, row.single) == (4, False)
    first, second, nameless, elsewhere = row
    assert [first.name, second.name] == [str(tmp_path / "in/a.png"), str(tmp_path / "b.png")]
    assert reds([first, second]) == [8, 5]
    with pytest.raises(InputError, match=r"images.parquet: row 2 has no path\."):
        nameless.read()
    with pytest.raises(InputError, match=r"s3://host/c.png: addresses begin with http"):
        elsewhere.read()


@pytest.mark.parametrize("groups", [7, 1000])
@pytest.mark.parametrize("form", ["named", "path", "struct"])
def test_images_are_read_in_any_order_and_in_other_processes(tmp_path, groups, form):
    def row(i):
        if form == "struct":
            return {"image": {"bytes": file_of(i), "path": f"{i}.png"}, "label": i}
        return {"path" if form == "path" else "name": f"{i}.png", "image": file_of(i)}

    path = write(tmp_path / "t.parquet", [row(i) for i in range(COUNT)], row_group_size=groups)
    found = sources.find(path)
    assert [picture.name for picture in found] == [f"{i}.png" for i in range(COUNT)]
    assert reds(found) == list(range(COUNT))
    order = np.random.default_rng(0).permutation(COUNT).tolist()
    pictures = list(found)
    assert reds(pictures[i] for i in order) == order
    sent = [pickle.dumps(pictures[i]) for i in order]
    assert max(map(len, sent)) < 500 + len(str(path))  # where the image is, not the image
    assert reds(map(pickle.loads, sent)) == order


def test_a_folder_or_a_pattern_names_several_tables(tmp_path):
    for part in range(2):
        rows = [{"name": f"{part}-{i}", "image": file_of(10 * part + i)} for i in range(3)]
        write(tmp_path / f"part-{part}.parquet", rows)
    for source in (tmp_path, str(tmp_path / "part-*.parquet")):
        assert reds(sources.find(source)) == [0, 1, 2, 10, 11, 12]
    write(tmp_path / "part-2.parquet", [{"name": "1-0", "image": file_of(1)}])
    with pytest.raises(InputError, match=r"part-2.parquet: row 0 is called '1-0', as row 0 of "):
        sources.find(tmp_path)
    (tmp_path / "a.png").write_bytes(file_of(9))  # then its tables are something else
    assert reds(sources.find(tmp_path)) == [9]


def test_a_lack_is_told_of_its_row(tmp_path):
    rows = [{"name": "a", "image": file_of(1)}, {"name": "b", "image": None}]
    rows += [{"name": "c", "image": b"text"}, {"name": None, "image": file_of(2)}]
    good, empty, text, nameless = sources.find(write(tmp_path / "t.parquet", rows))
    assert reds([good]) == [1]
    for picture, words in ((empty, "no image in row 1"), (text, "c: "), (nameless, "no name")):
        with pytest.raises(InputError, match=words):
            picture.read()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"file": "a.png", "label": 1}], r"this one has file \(string\), label \(int64\)"),
        ([{"image": "a.png", "height": 3}], r"this one has image \(string\)"),
        ([{"image": b"abc"}], r"this one has image \(binary\)"),
        ([{"path": 3}], r"this one has path \(int64\)"),
    ],
)
def test_another_table_is_refused(tmp_path, rows, words):
    with pytest.raises(InputError, match="column `path` .*or `image` .*" + words):
        sources.find(write(tmp_path / "t.parquet", rows))


def test_a_damaged_table_is_told(tmp_path):
    path = write(tmp_path / "t.parquet", [{"path": "a.png"}] * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"t.parquet: the table cannot be read \("):
        sources.find(path)
