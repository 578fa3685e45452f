"""Which files of a data root are taken, and what is said when none are."""

import json

import pytest

from swin_dense.datasets import layouts
from swin_dense.datasets.layouts import INSTANCES, LABEL_MAPS, PANOPTIC, Split
from swin_dense.errors import InputError, MissingInputError


def make(root, layout, splits=("train", "val"), folders=False):
    """Create what a layout names: image folders, annotation files or label folders."""
    for split in splits:
        (root / layout[split].images).mkdir(parents=True, exist_ok=True)
        labels = root / layout[split].labels
        if folders:
            labels.mkdir(parents=True, exist_ok=True)
        else:
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text("{}")


@pytest.mark.parametrize("place", range(len(INSTANCES)))
def test_each_layout_of_instances_is_found(tmp_path, place):
    make(tmp_path, INSTANCES[place])
    assert layouts.find(tmp_path, INSTANCES) == INSTANCES[place]


@pytest.mark.parametrize("place", range(len(PANOPTIC)))
def test_each_layout_of_segments_is_found(tmp_path, place):
    make(tmp_path, PANOPTIC[place])
    assert layouts.find(tmp_path, PANOPTIC) == PANOPTIC[place]


@pytest.mark.parametrize("place", range(len(LABEL_MAPS)))
def test_each_layout_of_label_maps_is_found(tmp_path, place):
    make(tmp_path, LABEL_MAPS[place], folders=True)
    assert layouts.find(str(tmp_path), LABEL_MAPS) == LABEL_MAPS[place]


@pytest.mark.parametrize(
    ("images", "split", "there", "expected"),
    [
        ("train2017", "train", ["stuffthingmaps/train2017"], "stuffthingmaps/train2017"),
        ("images/train", "train", ["label_maps/train"], "label_maps/train"),
        ("images", "val", ["label_maps/train", "label_maps/val"], "label_maps/val"),
        ("train2017", "train", ["stuffthingmaps/train"], "stuffthingmaps/train"),
        ("a", "train", ["label_maps/a", "stuffthingmaps/a"], "stuffthingmaps/a"),
        ("train2017", "train", [], "stuffthingmaps/train2017"),  # where they would lie
    ],
)
def test_label_maps_beside_instances_are_found(tmp_path, images, split, there, expected):
    for folder in there:
        (tmp_path / folder).mkdir(parents=True)
    assert layouts.semantic_maps(tmp_path, images, split) == expected


def test_names_are_those_of_the_originals():
    """By hand: COCO 2017 as cocodataset.org packs it, ADE20K as its authors do, Roboflow."""
    assert INSTANCES[0]["train"] == Split("train2017", "annotations/instances_train2017.json")
    assert PANOPTIC[0]["train"] == Split("train2017", "annotations/panoptic_train2017.json")
    assert PANOPTIC[0]["train"].segments == "annotations/panoptic_train2017"
    assert INSTANCES[-1]["val"] == Split("valid", "valid/_annotations.coco.json")
    assert LABEL_MAPS[0]["val"] == Split("images/validation", "annotations/validation")
    assert {"train": Split("train", "train.json"), "val": Split("val", "val.json")} in INSTANCES
    assert {"train": Split("images", "train.json"), "val": Split("images", "val.json")} in INSTANCES


def test_the_first_match_wins(tmp_path):
    make(tmp_path, INSTANCES[3])
    make(tmp_path, INSTANCES[0])
    assert layouts.find(tmp_path, INSTANCES) == INSTANCES[0]


def test_only_the_asked_splits_must_be_there(tmp_path):
    make(tmp_path, INSTANCES[0], splits=("val",))
    assert layouts.find(tmp_path, INSTANCES, ("val",)) == {"val": INSTANCES[0]["val"]}
    with pytest.raises(InputError, match="none of the layouts"):
        layouts.find(tmp_path, INSTANCES, ("train", "val"))


def test_splits_of_two_layouts_are_not_mixed(tmp_path):
    make(tmp_path, INSTANCES[0], splits=("train",))
    make(tmp_path, INSTANCES[-1], splits=("val",))
    with pytest.raises(InputError, match="none of the layouts"):
        layouts.find(tmp_path, INSTANCES)


def test_images_must_be_a_folder(tmp_path):
    make(tmp_path, INSTANCES[0])
    (tmp_path / "val2017").rmdir()
    (tmp_path / "val2017").write_text("")
    with pytest.raises(InputError, match="none of the layouts"):
        layouts.find(tmp_path, INSTANCES)


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(MissingInputError, match=r"no folder .*nowhere .*`data_root`.*shapes"):
        layouts.find(tmp_path / "nowhere", INSTANCES)


def test_the_message_lists_what_is_there_and_every_layout(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError) as raised:
        layouts.find(tmp_path, LABEL_MAPS, ("val",))
    text = str(raised.value)
    assert "It holds: notes.txt, pictures/." in text
    for layout in LABEL_MAPS:
        assert f"{layout['val'].labels} + {layout['val'].images}/" in text
    assert "training" not in text  # that split was not asked for
    assert "ann_file and data_prefix" in text


def test_a_long_listing_is_cut(tmp_path):
    for number in range(13):
        (tmp_path / f"{number:02}").mkdir()
    with pytest.raises(InputError, match=r"00/, .*, 11/ \.\.\.\. Known"):
        layouts.find(tmp_path, INSTANCES)


def test_an_empty_root(tmp_path):
    with pytest.raises(InputError, match="It holds: nothing"):
        layouts.find(tmp_path, INSTANCES)


def export(root, labels, names, folder="images", images=None):
    """Write an annotation file that names images, and those images, empty."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names if images is None else images:
        (root / folder / name).touch()
    (root / labels).parent.mkdir(parents=True, exist_ok=True)
    entries = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    (root / labels).write_text(json.dumps({"images": entries}), encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("labels", "folder"),
    [
        ("annotations.json", "images"),
        ("annotations/instances_default.json", "images/default"),  # CVAT
        ("_annotations.coco.json", "."),  # Roboflow
        ("result.json", "images"),  # Label Studio
        ("labels.json", "data"),  # FiftyOne
        ("my_export.json", "images"),
        ("annotations/instances_train.json", "images/train"),  # a training part alone
    ],
)
def test_one_annotation_file_for_all_images_is_found(tmp_path, labels, folder):
    export(tmp_path, labels, ["a.png", "b.png"], folder)
    assert layouts.find_whole(tmp_path, INSTANCES) == Split(folder, labels)
    with pytest.raises(InputError, match=f"{labels} .* all images, undivided: .*`val_share` 0.2"):
        layouts.find(tmp_path, INSTANCES)
    assert layouts.find(tmp_path, INSTANCES, ("train",))["train"].labels == labels


def test_a_path_with_back_slashes_is_the_same_path(tmp_path):
    export(tmp_path, "result.json", ["images\\a.png"], "images", ["a.png"])
    assert layouts.find_whole(tmp_path, INSTANCES) == Split(".", "result.json")


def test_images_that_are_nowhere_are_named(tmp_path):
    export(tmp_path, "result.json", ["a.png", "b.png"], "images", ["a.png"])
    with pytest.raises(InputError, match=r"its images, a\.png, b\.png, are in none of the folders"):
        layouts.find_whole(tmp_path, INSTANCES)


def test_several_files_could_be_it(tmp_path):
    for name in ("one.json", "two.json"):
        export(tmp_path, name, ["a.png"])
    with pytest.raises(InputError, match=r"2 annotation files, one\.json, two\.json"):
        layouts.find_whole(tmp_path, INSTANCES)
    with pytest.raises(InputError, match="none of the layouts known"):
        layouts.find(tmp_path, INSTANCES)


@pytest.mark.parametrize("labels", layouts.WHOLE_MAPS)
def test_one_folder_of_label_maps_is_found(tmp_path, labels):
    for place in ("images/a.jpg", f"{labels}/a.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    assert layouts.find_whole(tmp_path, LABEL_MAPS) == Split("images", labels)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("data.yaml", "", "YOLO's format"),
        ("labels/a.txt", "", "YOLO's format"),
        ("Annotations/a.xml", "", r"the XML of Pascal VOC or CVAT \(a\.xml\)"),
        ("annotations.xml", "", "the XML of Pascal VOC or CVAT"),
        ("leftImg8bit/x", "", "Cityscapes"),
        ("json/a.json", '{"shapes": []}', r"LabelMe's files \(a\.json\)"),
        ("train2017.zip", "", r"archives \(train2017\.zip\)"),
    ],
)
def test_another_format_is_told_what_makes_a_data_root_of_it(tmp_path, name, text, says):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"It looks like {says}.*: tools/prepare_data\.py"):
        layouts.find(tmp_path, INSTANCES)


def test_nothing_is_nothing(tmp_path):
    for known in (INSTANCES, PANOPTIC, LABEL_MAPS):
        assert layouts.find_whole(tmp_path, known) is None
