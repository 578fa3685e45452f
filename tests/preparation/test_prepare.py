"""From a source to a data root: written aside, checked, gone on with, never in place."""

import json
import os
import shutil

import numpy as np
import pytest
from exports import SIZES, cvat, labelme, shape, voc, yolo
from PIL import Image
from pycocotools.coco import COCO

from swin_dense.cli import prepare_data
from swin_dense.datasets import coco_layout, label_maps, layouts
from swin_dense.errors import InputError
from swin_dense.preparation import prepare
from swin_dense.preparation.formats import FORMATS
from swin_dense.preparation.prepare import Options

HALF = Options(val_share=0.5)


def run(kind, source, out, options=HALF):
    """Prepare; the lines that were said."""
    said = []
    prepare.prepare(kind, source, out, options, said.append)
    return said


def tree(root):
    """The files below a folder, and what is in them."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def entries(out):
    """Both annotation files of a data root."""
    found = layouts.find(out, layouts.INSTANCES)
    return {part: json.loads((out / split.labels).read_text()) for part, split in found.items()}


@pytest.mark.parametrize("write", [yolo, voc, labelme, cvat])
def test_each_export_becomes_a_data_root_of_its_images(tmp_path, write, capsys):
    source, out = write(tmp_path / "source"), tmp_path / "data/out"
    before = tree(source)
    assert prepare_data.main(
        [write.__name__, str(source), "--out", str(out), "--val-share", "0.4", "--seed", "3"]
    ) == 0  # fmt: skip
    assert f"train with --data-root {out}" in capsys.readouterr().out
    parts = entries(out)
    names = [i["file_name"] for content in parts.values() for i in content["images"]]
    assert sorted(name[-5] for name in names) == list(SIZES)
    assert len(parts["val"]["images"]) in (2, 3)
    for part in parts:
        content = coco_layout.check(
            out / f"annotations/instances_{part}.json", out / f"images/{part}"
        )
        assert content.kept_images == content.images
        COCO(str(out / f"annotations/instances_{part}.json"))  # the judge reads it, too
    assert tree(source) == before
    assert os.listdir(out.parent) == ["out"]
    note = json.loads((out / "prepared.json").read_text())
    assert note["complete"] is True
    assert note["format"] == write.__name__
    assert note["images"] == {part: len(c["images"]) for part, c in parts.items()}
    assert note["options"]["val_share"] == 0.4
    assert note["licence"].startswith("unknown")


def test_the_areas_are_those_of_the_masks(tmp_path):
    run("labelme", labelme(tmp_path / "source"), tmp_path / "out")
    path = tmp_path / "out/annotations/instances_train.json"
    api = COCO(str(path))
    for entry in api.dataset["annotations"]:
        assert entry["area"] == api.annToMask(entry).sum()


def test_a_packed_export_is_the_same(tmp_path):
    source = cvat(tmp_path / "source")
    shutil.make_archive(str(tmp_path / "export"), "zip", source)
    run("cvat", source, tmp_path / "a")
    said = run("custom", tmp_path / "export.zip", tmp_path / "b")
    assert "format: cvat" in said
    assert {**tree(tmp_path / "a"), "prepared.json": b""} == {
        **tree(tmp_path / "b"), "prepared.json": b"",
    }  # fmt: skip


def test_what_was_left_unfinished_is_gone_on_with(tmp_path, monkeypatch):
    source, out = cvat(tmp_path / "source"), tmp_path / "out"
    shutil.make_archive(str(tmp_path / "export"), "zip", source)
    source = tmp_path / "export.zip"
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_check", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("cvat", source, out)
    assert not out.exists()
    with pytest.raises(InputError, match=r"left unfinished by another command \(options"):
        run("cvat", source, out, Options(val_share=0.3))
    said = run("cvat", source, out)
    assert said[0] == f"going on in {out}.unfinished"
    assert "7 of them there already" in said[1]
    assert len(entries(out)["train"]["images"]) == 3


def stopped(*_):
    raise KeyboardInterrupt


def test_a_source_that_is_refused_leaves_nothing(tmp_path):
    source = yolo(tmp_path / "source", ["7 0.5 0.5 0.1 0.1"])
    with pytest.raises(InputError, match="class 7 has no name"):
        run("yolo", source, tmp_path / "out")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("place", ["source", "source/inside", "full"])
def test_a_folder_that_is_in_use_is_not_written_to(tmp_path, place):
    source = yolo(tmp_path / "source")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    before = tree(tmp_path)
    with pytest.raises(InputError, match="`out`: "):
        run("yolo", source, tmp_path / place)
    assert tree(tmp_path) == before


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    run("yolo", yolo(tmp_path / "source"), tmp_path / "out")
    assert entries(tmp_path / "out")


def test_undivided_images_ask_for_a_share(tmp_path):
    with pytest.raises(InputError, match=r"as `val_share` 0\.2"):
        run("cvat", cvat(tmp_path / "source"), tmp_path / "out", Options())


def test_the_source_s_own_parts_stay(tmp_path):
    source = voc(tmp_path / "source", {"train": "acef", "val": "bd"})
    run("voc", source, tmp_path / "out", Options())
    parts = entries(tmp_path / "out")
    names = {part: [i["file_name"] for i in c["images"]] for part, c in parts.items()}
    assert names == {"train": ["a.png", "c.png", "e.png", "f.png"], "val": ["b.png", "d.png"]}


def test_groups_stay_in_one_part(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(labelme(tmp_path / "x"), source)
    for i, stem in enumerate(SIZES):  # three folders of two images
        for kind, suffix in (("imgs", "png"), ("json", "json")):
            folder = source / kind / f"scene{i // 2}"
            folder.mkdir(exist_ok=True)
            (source / f"{kind}/{stem}.{suffix}").rename(folder / f"{stem}.{suffix}")
    run("labelme", source, tmp_path / "out", Options(val_share=0.3, group_by="folder"))
    folders = {
        part: {i["file_name"].split("/")[1] for i in c["images"]}
        for part, c in entries(tmp_path / "out").items()
    }
    assert sorted(map(len, folders.values())) == [1, 2]
    assert not folders["train"] & folders["val"]


@pytest.mark.parametrize(
    ("name", "group"),
    [("a/film_12-0007.png", "a/film_12"), ("film_12.png", "film"), ("film.png", "film")],
)
def test_the_prefix_of_a_name(name, group):
    picture = prepare.Picture(None, name)
    assert prepare._groups([picture], "prefix") == [group]


def test_links_take_no_room(tmp_path):
    source = yolo(tmp_path / "source")
    run("yolo", source, tmp_path / "out", Options(val_share=0.5, link=True))
    (path,) = (tmp_path / "out").rglob("a.png")
    assert path.samefile(source / "images/a.png")
    run("yolo", source, tmp_path / "copied")
    (path,) = (tmp_path / "copied").rglob("a.png")
    assert not path.samefile(source / "images/a.png")


def test_label_maps_of_outlines_by_hand(tmp_path):
    """0 is background, classes count from 1, what is to be ignored is 255, later lies over."""
    shapes = [
        shape("dog", [[0, 0], [20, 10]], "rectangle"),
        shape("cat", [[5, 2], [5, 8], [9, 8], [9, 2]]),
        shape("__ignore__", [[30, 0], [33, 0], [33, 4], [30, 4]]),
        shape("_background_", [[0, 0], [2, 0], [2, 2], [0, 2]]),
    ]
    source = labelme(tmp_path / "source", shapes)
    run("labelme", source, tmp_path / "out", Options(task="label-maps", val_share=0.5))
    (path,) = (tmp_path / "out/annotations").rglob("a.png")
    expected = np.zeros(SIZES["a"], int)
    expected[0:10, 0:20] = 2
    expected[2:8, 5:9] = 1
    expected[0:4, 30:33] = 255
    expected[0:2, 0:2] = 0
    np.testing.assert_array_equal(label_maps.read_label_map(path), expected)
    assert (tmp_path / "out/classes.txt").read_text() == "background\ncat\ndog\n"


def test_boxes_make_no_label_map(tmp_path):
    with pytest.raises(InputError, match="boxes alone, and a label map needs outlines"):
        run("yolo", yolo(tmp_path / "s"), tmp_path / "out", Options("label-maps", val_share=0.5))


def test_a_task_that_a_format_lacks(tmp_path):
    with pytest.raises(InputError, match="ade20k can be made into label-maps, not instances"):
        run("ade20k", tmp_path, tmp_path / "out", Options("instances"))


# COCO and label maps


def test_a_coco_set_stays_as_it_is(tmp_path, small_shapes):
    """Annotation files, panoptic ones and their PNGs too."""
    said = run("coco", small_shapes.root, tmp_path / "out", Options())
    found, source = tree(tmp_path / "out"), tree(small_shapes.root)
    del found["prepared.json"]
    assert found == {name: source[name] for name in found}
    assert {"annotations/instances_val.json", "annotations/panoptic_train.json"} <= found.keys()
    assert sum(name.startswith("images/") for name in found) == 13
    assert f"{len(found)} files, as they are" in said


def test_a_subset_of_coco_keeps_what_entries_say(tmp_path, small_shapes):
    run("coco", small_shapes.root, tmp_path / "out", Options(subset=3))
    for part, content in entries(tmp_path / "out").items():
        whole = json.loads(small_shapes.annotation_file(part).read_text())
        assert len(content["images"]) == 3
        names = {c["id"]: c["name"] for c in content["categories"]}
        of_whole = {c["id"]: c["name"] for c in whole["categories"]}
        assert list(names.values()) == list(of_whole.values())
        ids = {i["file_name"]: i["id"] for i in whole["images"]}
        for image in content["images"]:
            assert objects(content, image["id"], names) == objects(
                whole, ids[image["file_name"]], of_whole
            )


def objects(content, number, names):
    return [
        (names[e["category_id"]], e["bbox"], e["area"], e["segmentation"])
        for e in content["annotations"]
        if e["image_id"] == number
    ]


def test_a_set_is_divided_anew_by_a_share(tmp_path, small_shapes):
    run("coco", small_shapes.root, tmp_path / "out", Options(val_share=0.5, subset=8))
    assert sum(len(c["images"]) for c in entries(tmp_path / "out").values()) == 8


def test_ade20k_is_found_by_its_folders(tmp_path):
    source = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for i in range(3):
            for kind, suffix in (("images", "jpg"), ("annotations", "png")):
                path = source / kind / split / f"ADE_{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                mode = "RGB" if kind == "images" else "L"
                Image.new(mode, (9, 7), (i + 1) if mode == "L" else (9, 9, 9)).save(path)
    shutil.make_archive(str(tmp_path / "ADEChallengeData2016"), "zip", tmp_path, source.name)
    run("ade20k", tmp_path / "ADEChallengeData2016.zip", tmp_path / "out", Options())
    found = tree(tmp_path / "out")
    assert set(tree(source)) == set(found) - {"prepared.json"}
    run("ade20k", source, tmp_path / "some", Options(subset=2))
    names = set(tree(tmp_path / "some")) - {"prepared.json"}
    assert len(names) == 8
    assert names <= set(found)
    with pytest.raises(InputError, match=r"official files are ADEChallengeData2016\.zip"):
        run("ade20k", tmp_path / "absent", tmp_path / "x", Options())


def test_label_maps_in_one_folder_are_divided(tmp_path, small_shapes):
    source = tmp_path / "source"
    shutil.copytree(small_shapes.root / "images/train", source / "images")
    shutil.copytree(small_shapes.root / "label_maps/train", source / "masks")
    with pytest.raises(InputError, match="label maps carry no names"):
        run("custom", source, tmp_path / "out", Options(val_share=0.3))
    options = Options(val_share=0.3, classes=small_shapes.root / "classes.txt")
    run("custom", source, tmp_path / "out", options)
    layout = layouts.find(tmp_path / "out", layouts.LABEL_MAPS)
    pairs = {p: len(label_maps.pair_files(tmp_path / "out" / s.images, tmp_path / "out" / s.labels))
             for p, s in layout.items()}  # fmt: skip
    assert sum(pairs.values()) == 9
    assert 2 <= pairs["val"] <= 4


def test_the_command_knows_every_format():
    assert tuple(FORMATS) == prepare_data.FORMATS


def test_folders_beside_archives_belong_to_the_set_and_are_not_written_to(tmp_path, monkeypatch):
    """Also when a run that was stopped is gone on with and another archive has come."""
    source = tmp_path / "source"
    for part in ("train", "val"):
        for i in range(2):
            for kind, mode in (("leftImg8bit", "RGB"), ("gtFine", "L")):
                end = "leftImg8bit" if mode == "RGB" else "gtFine_labelIds"
                path = source / f"{kind}/{part}/ulm/ulm_{i}_{end}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (9, 7), 7 if mode == "L" else (9, 9, 9)).save(path)
    for name in ("leftImg8bit", "gtFine"):
        archive = str(tmp_path / f"{name}_trainvaltest")
        shutil.make_archive(archive, "zip", source, name)
    shutil.rmtree(source / "leftImg8bit")
    shutil.move(tmp_path / "leftImg8bit_trainvaltest.zip", source)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_check", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("cityscapes", source, tmp_path / "out", Options())
    (source / "gtFine/train/ulm/ulm_0_gtFine_labelIds.png").write_bytes(b"mine")
    shutil.move(tmp_path / "gtFine_trainvaltest.zip", source)
    before = tree(source)
    run("cityscapes", source, tmp_path / "out", Options())
    assert tree(source) == before
    out = tmp_path / "out"
    assert len(label_maps.pair_files(out / "images/val", out / "annotations/val")) == 2
