"""Labels by name, pairs by name, and raw label values through one table."""

import json
import os
import pickle
import random

import numpy as np
import pytest
from mmdet.datasets import CocoDataset, ConcatDataset, MultiImageMixDataset
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets import coco_layout
from swin_dense.datasets.label_maps import IGNORE
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import (
    ADE20K,
    CocoInstances,
    CocoPanoptic,
    LabelMaps,
    location,
)

# File order; the ids are neither sorted nor dense.
CATEGORIES = {9: "cat", 4: "dog", 7: "emu"}


@pytest.fixture
def annotations(tmp_path):
    """Two images; objects emu, cat, dog and dog, emu."""
    objects = [(31, 7), (31, 9), (31, 4), (22, 4), (22, 7)]
    content = dict(
        images=[dict(id=i, file_name=f"{i}.png", height=60, width=80) for i in (31, 22)],
        annotations=[
            dict(id=n, image_id=i, category_id=c, bbox=[2 * n, 3, 10, 12], area=120, iscrowd=0)
            for n, (i, c) in enumerate(objects, start=1)
        ],
        categories=[dict(id=i, name=name) for i, name in CATEGORIES.items()],
    )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def instances(path, **more):
    return CocoInstances(ann_file=str(path), data_prefix=dict(img="x"), pipeline=[], **more)


def labels_of(dataset):
    return [[row["bbox_label"] for row in image["instances"]] for image in dataset]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "dog", "emu"), [[2, 0, 1], [1, 2]]),
        (("dog", "emu", "cat"), [[1, 2, 0], [0, 1]]),
        (("emu", "cat"), [[0, 1], [0]]),
    ],
)
def test_labels_follow_the_names_not_the_file(annotations, names, expected):
    dataset = instances(annotations, metainfo=dict(classes=names))
    assert dataset.metainfo["classes"] == names
    assert labels_of(dataset) == expected


def test_without_names_the_file_s_are_taken(annotations):
    dataset = instances(annotations)
    assert dataset.metainfo["classes"] == ("cat", "dog", "emu")
    assert labels_of(dataset) == [[2, 0, 1], [1, 2]]
    assert CocoInstances.METAINFO == {}  # not remembered for the next data set


def test_a_name_the_file_lacks(annotations):
    with pytest.raises(InputError, match=r"'Dog' .* Did you mean 'dog'"):
        instances(annotations, metainfo=dict(classes=("cat", "Dog")))


def test_label_maps_beside_instances_carry_their_table(annotations):
    prefix = dict(img="x", seg="maps")
    dataset = CocoInstances(
        ann_file=str(annotations), data_prefix=prefix, pipeline=[], semantic_classes=183
    )
    found = dataset[0]
    assert found["seg_map_path"] == os.path.join("maps", "31.png")
    assert found["label_table"].lookup(np.array([[0, 182, 255]])).tolist() == [[0, 182, IGNORE]]
    with pytest.raises(InputError, match=r"183 \(1 pixels\)"):
        found["label_table"].lookup(np.array([[0, 183]]))
    whole = CocoInstances(ann_file=str(annotations), data_prefix=prefix, pipeline=[])
    assert whole[0]["label_table"].lookup(np.array([[254]])).tolist() == [[254]]
    assert "label_table" not in instances(annotations)[0]


def test_reading_says_nothing(annotations, capsys):
    instances(annotations)
    assert capsys.readouterr().out == ""


@pytest.fixture
def pairs(tmp_path):
    """Images of three kinds, one in a folder inside, and their label maps."""
    for name, suffix in (("b", ".jpg"), ("a", ".png"), ("deep/c", ".JPEG")):
        for folder, ending in (("pictures", suffix), ("maps", ".png")):
            path = tmp_path / folder / f"{name}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            value = {"a": 3, "b": 5, "deep/c": 1}[name]
            array = np.full((7, 9), value, np.uint8)
            kind = "JPEG" if ending.lower() in (".jpg", ".jpeg") else "PNG"
            Image.fromarray(array).save(path, format=kind)
    return dict(
        data_root=str(tmp_path),
        data_prefix=dict(img_path="pictures", seg_map_path="maps"),
        pipeline=[],
    )


NAMES = tuple("uvwxyz")


def test_pairs_have_the_same_name(pairs, tmp_path):
    dataset = LabelMaps(metainfo=dict(classes=NAMES), **pairs)
    found = [(item["img_path"], item["seg_map_path"]) for item in dataset]
    expected = [("a.png", "a.png"), ("b.jpg", "b.png"), ("deep/c.JPEG", "deep/c.png")]
    assert found == [(f"{tmp_path}/pictures/{i}", f"{tmp_path}/maps/{m}") for i, m in expected]


def test_a_map_without_image_is_named(pairs, tmp_path):
    (tmp_path / "pictures/b.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 3 label maps have no image: b\.png"):
        LabelMaps(metainfo=dict(classes=NAMES), **pairs)


def test_every_item_carries_the_table(pairs):
    dataset = LabelMaps(metainfo=dict(classes=NAMES), first_value=1, ignore=(0, 9), **pairs)
    raw = np.array([[0, 1, 6, 9]])
    for item in dataset:
        assert item["label_table"].lookup(raw).tolist() == [[IGNORE, 0, 5, IGNORE]]
        assert item["reduce_zero_label"] is False  # mmseg's reader is told the table, too
        assert item["label_map"] == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 0: IGNORE, 9: IGNORE}
        assert item["seg_fields"] == []


def test_items_do_not_share_their_lists(pairs):
    dataset = LabelMaps(metainfo=dict(classes=NAMES), **pairs)
    dataset[0]["seg_fields"].append("gt_seg_map")
    assert dataset[0]["seg_fields"] == dataset[1]["seg_fields"] == []


def test_maps_carry_no_names(pairs):
    with pytest.raises(InputError, match="label maps carry no names"):
        LabelMaps(**pairs)


def test_a_text_is_not_taken_for_its_letters(pairs):
    with pytest.raises(InputError, match="'sky'"):
        LabelMaps(metainfo=dict(classes="sky"), **pairs)


def test_ade20k_has_150_classes_and_zero_is_not_judged(pairs):
    dataset = ADE20K(**pairs)
    names = dataset.metainfo["classes"]
    assert len(names) == len(set(names)) == 150
    assert (names[0], names[12], names[149]) == ("wall", "person", "flag")
    assert dataset.label_table.classes == tuple(names)
    raw = np.arange(151)[None]
    expected = [IGNORE, *range(150)]
    assert dataset.label_table.lookup(raw)[0].tolist() == expected
    with pytest.raises(InputError, match=r"151 \(1 pixels\)"):
        dataset.label_table.lookup(np.array([[151]]))


def test_location(tmp_path):
    dataset = dict(data_root="/data", ann_file="a.json", data_prefix=dict(img="images"))
    assert str(location(dataset, "ann_file")) == "/data/a.json"
    assert str(location(dataset, "img")) == "/data/images"
    assert str(location(dataset | {"ann_file": "/else/a.json"}, "ann_file")) == "/else/a.json"
    assert str(location(dict(ann_file="a.json"), "ann_file")) == "a.json"


@pytest.mark.parametrize("seed", range(3))
def test_the_check_of_a_set_counts_what_mmdet_keeps(tmp_path, seed):
    """Boxes around every border of the rule: sizes about 1, edges about 0 and the image's own."""
    draw = random.Random(seed)
    sizes = {i: (draw.randint(28, 80), draw.randint(28, 60)) for i in range(1, 41)}
    rows = []
    for number in range(1, 601):
        across, down = sizes[number % 40 + 1]
        left = draw.choice([0, -1, -9, across, across - 1, draw.uniform(-20, across + 5)])
        top = draw.choice([0, -3, down, down - 0.5, draw.uniform(-20, down + 5)])
        width, height = (
            draw.choice([1, 9, 30, -start, draw.uniform(-1, 40), draw.uniform(0.9, 1.1)])
            for start in (left, top)
        )
        row = dict(id=number, image_id=number % 40 + 1, category_id=draw.choice(list(CATEGORIES)))
        row |= dict(bbox=[left, top, width, height], area=draw.choice([0, -4, *[50] * 20]))
        row |= draw.choice(
            [{}, {}, {"iscrowd": 0}, {"iscrowd": 1}, {"ignore": draw.random() < 0.5}]
        )
        rows.append(row)
        rows.append(row | dict(id=1000 + number, bbox=[3, 4, 9, 8], area=72))  # most are good
    for row in rows:
        if row["image_id"] > 33:  # images that have only crowds, or only boxes without width
            row |= {"iscrowd": 1} if row["image_id"] % 2 else {"bbox": [3, 4, 0.5, 8]}
    (tmp_path / "x").mkdir()
    for i in sizes:
        (tmp_path / "x" / f"{i}.png").touch()
    content = dict(
        images=[dict(id=i, file_name=f"{i}.png", width=w, height=h) for i, (w, h) in sizes.items()],
        annotations=rows,
        categories=[dict(id=i, name=name) for i, name in CATEGORIES.items()],
    )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    names = ("emu", "cat")

    kept = instances(
        path,
        metainfo=dict(classes=names),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
    )
    found = [image["instances"] for image in kept]
    objects = [row["bbox_label"] for image in found for row in image if not row["ignore_flag"]]
    summary = coco_layout.check(path, tmp_path / "x", classes=names, subset=True, min_side=32)
    assert summary.objects == {name: objects.count(label) for label, name in enumerate(names)}
    assert summary.crowds == sum(map(len, found)) - len(objects)
    assert summary.kept_images == sum(any(not r["ignore_flag"] for r in rows) for rows in found)
    assert 0 < summary.kept_images < len(kept) < summary.images
    assert all(summary.dropped.values())


# Segments.


@pytest.fixture
def panoptic_file(tmp_path):
    """Three images: a cat on grass, grass alone, a crowd of cats; the grass comes first."""
    content = dict(
        images=[dict(id=i, file_name=f"{i}.jpg", height=60, width=30 * i) for i in (3, 2, 1)],
        annotations=[
            dict(image_id=i, file_name=f"{i}.png", segments_info=[dict(s) for s in segments])
            for i, segments in (
                (3, [dict(id=8, category_id=6, iscrowd=0), dict(id=9, category_id=2)]),
                (2, [dict(id=8, category_id=2)]),
                (1, [dict(id=7, category_id=6, iscrowd=1)]),
            )
        ],
        categories=[dict(id=2, name="grass", isthing=0), dict(id=6, name="cat", isthing=1)],
    )
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps(content))
    return path


def panoptic(path, **more):
    prefix = dict(img="x", seg="y")
    return CocoPanoptic(ann_file=str(path), data_prefix=prefix, pipeline=[], **more)


def test_labels_of_segments_count_things_first(panoptic_file):
    dataset = panoptic(panoptic_file)
    assert dataset.metainfo["classes"] == ("cat", "grass")
    assert dataset.metainfo["thing_classes"] == ("cat",)
    assert [[s["label"] for s in sample["segments"]] for sample in dataset] == [[0, 1], [1], [0]]
    assert (dataset[0]["img_path"], dataset[0]["seg_map_path"]) == ("x/3.jpg", "y/3.png")
    assert CocoPanoptic.METAINFO == {}


def test_some_of_the_classes_of_segments(panoptic_file):
    dataset = panoptic(panoptic_file, metainfo=dict(classes=("grass",)))
    assert (dataset.metainfo["classes"], dataset.metainfo["thing_classes"]) == (("grass",), ())
    assert [[s["label"] for s in sample["segments"]] for sample in dataset] == [
        [None, 0],
        [0],
        [None],
    ]


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        (dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)), [3, 2]),
        (dict(filter_cfg=dict(filter_empty_gt=False, min_size=60)), [3, 2]),
        (dict(filter_cfg=dict(filter_empty_gt=False, min_size=30)), [3, 2, 1]),
        (dict(filter_cfg=dict(filter_empty_gt=True, min_size=32), test_mode=True), [3, 2, 1]),
        ({}, [3, 2, 1]),
    ],
)
def test_which_images_of_segments_are_trained_on(panoptic_file, more, kept):
    assert [sample["img_id"] for sample in panoptic(panoptic_file, **more)] == kept


# Instances as mmdet has them.


@pytest.fixture
def wild(tmp_path):
    """Thirty images, some without objects; masks of each kind, crowds, ignored, two left out."""
    draw = random.Random(7)
    images = [
        dict(id=100 - i, file_name=f"deep/{i}.jpg", height=30 + i, width=60 - i) for i in range(30)
    ]
    rows = []
    for number in range(1, 150):
        image = draw.choice(images[:25])
        size = [image["height"], image["width"]]
        mask = draw.choice(
            [
                [[draw.uniform(0, 30) for _ in range(2 * n)] for n in (3, 5)],
                dict(size=size, counts=[7, 8, size[0] * size[1] - 15]),
                dict(size=size, counts="52d"),
                [],
            ]
        )
        row = dict(id=number, image_id=image["id"], category_id=draw.choice(list(CATEGORIES)))
        row |= dict(bbox=[draw.uniform(-9, 50), 3, draw.uniform(0, 9), 12], segmentation=mask)
        row |= dict(area=draw.choice([0, 50.5, 60]), iscrowd=draw.choice([0, 0, 1]))
        rows.append(row | draw.choice([{}, {"ignore": 1}, {"ignore": 0}]))
    content = dict(
        images=images,
        annotations=rows,
        categories=[dict(id=i, name=name) for i, name in CATEGORIES.items()],
    )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


FILTERS = [
    {},
    dict(filter_cfg=dict(filter_empty_gt=True, min_size=36)),
    dict(filter_cfg=dict(filter_empty_gt=True, min_size=36), test_mode=True),
    dict(filter_cfg=dict(min_size=40), indices=5),
    dict(indices=-4),
    dict(indices=[7, 2, 2, 11]),
    dict(data_prefix=dict(img="x", seg="y"), seg_map_suffix=".tif"),
    dict(return_classes=True, caption_prompt={}),
]


def samples(dataset):
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [{key: value for key, value in row.items() if key != "label_table"} for row in found]


@pytest.mark.parametrize("more", FILTERS, ids=str)
def test_samples_equal_mmdets(wild, more):
    names = tuple(CATEGORIES.values())  # mmdet takes ids in the order of the file
    common = dict(ann_file=str(wild), metainfo=dict(classes=names), pipeline=[])
    common |= dict(data_prefix=dict(img="x")) | more
    ours, theirs = CocoInstances(**common), CocoDataset(**common)
    assert len(ours) == len(theirs) > 3
    assert samples(ours) == samples(theirs)
    assert [ours.get_cat_ids(i) for i in range(len(ours))] == [
        theirs.get_cat_ids(i) for i in range(len(theirs))
    ]
    assert (ours.cat_ids, ours.cat2label) == (theirs.cat_ids, theirs.cat2label)
    assert ours.cat_img_map == theirs.cat_img_map
    last = {k: v for k, v in ours[-1].items() if k != "label_table"}
    assert last == theirs[-1]


@pytest.mark.parametrize("indices", [3, -3, [4, 0, 4, 2]], ids=str)
def test_subsets_equal_mmdets(wild, indices):
    names = tuple(CATEGORIES.values())
    common = dict(ann_file=str(wild), metainfo=dict(classes=names), pipeline=[])
    common |= dict(data_prefix=dict(img="x"))
    ours, theirs = CocoInstances(**common), CocoDataset(**common, serialize_data=False)
    subset = ours.get_subset(indices)
    assert samples(subset) == samples(theirs.get_subset(indices))
    assert len(ours) == 30
    assert subset.file is ours.file
    ours.get_subset_(indices)
    assert samples(ours) == samples(subset)


def test_mmdets_wrappers_take_it(wild):
    names = tuple(CATEGORIES.values())
    common = dict(ann_file=str(wild), metainfo=dict(classes=names), pipeline=[])
    common |= dict(data_prefix=dict(img="x"))
    kinds = [CocoInstances, CocoDataset]
    for wrap in (
        lambda d: ClassBalancedDataset(d, oversample_thr=0.9),
        lambda d: RepeatDataset(d, times=2),
        lambda d: ConcatDataset([d, d.get_subset([3, 1])]),
        lambda d: MultiImageMixDataset(d, pipeline=[]),
    ):
        ours, theirs = (wrap(kind(**common)) for kind in kinds)
        assert len(ours) == len(theirs)
        assert samples(ours) == samples(theirs)
        assert ours[5] == theirs[5]


def test_another_process_has_the_same_samples(wild):
    dataset = instances(wild)
    sent = pickle.dumps(dataset)
    assert samples(pickle.loads(sent)) == samples(dataset)


def test_a_file_with_an_error_is_refused_in_words(annotations):
    content = json.loads(annotations.read_text())
    content["annotations"][2].pop("bbox")
    annotations.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"1 of 5 annotations lack 'bbox'.*\[field-absent\]"):
        instances(annotations)


def test_a_split_that_lists_fewer_categories_keeps_the_labels(annotations):
    content = json.loads(annotations.read_text())
    content["categories"] = content["categories"][1:]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 9]
    annotations.write_text(json.dumps(content))
    classes = dict(metainfo=dict(classes=("cat", "dog", "emu")))
    dataset = instances(annotations, test_mode=True, **classes)
    assert labels_of(dataset) == [[2, 1], [1, 2]]
    with pytest.raises(InputError, match="'cat' is not in the file"):
        instances(annotations, **classes)


def test_images_are_found_as_the_check_finds_them(annotations, tmp_path):
    content = json.loads(annotations.read_text())
    content["images"][0]["file_name"] = "deep\\a.JPG"
    annotations.write_text(json.dumps(content))
    (tmp_path / "x/deep").mkdir(parents=True)
    (tmp_path / "x/deep/a.jpg").touch()
    (tmp_path / "x/22.png").touch()
    dataset = CocoInstances(
        ann_file=str(annotations), data_prefix=dict(img=str(tmp_path / "x")), pipeline=[]
    )
    assert [s["img_path"] for s in dataset] == [f"{tmp_path}/x/deep/a.jpg", f"{tmp_path}/x/22.png"]


def test_proposals_come_with_their_image(annotations, tmp_path):
    stored = {"x/31.png": {"bboxes": [1]}, "x/22.png": {"bboxes": [2]}}
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(stored))
    dataset = instances(annotations, proposal_file=str(path))
    assert [sample["proposals"]["bboxes"] for sample in dataset] == [[1], [2]]
