"""Settling a config's data: files found, classes read by name, heads sized, both orders equal."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS, ROOT
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets import shapes
from swin_dense.datasets.label_maps import IGNORE
from swin_dense.errors import InputError, MissingInputError
from swin_dense.openmmlab.data.coco_metric import CocoMetric
from swin_dense.openmmlab.settings import classes, image_sizes, places
from swin_dense.openmmlab.settings import config as configs
from swin_dense.registry import DATASETS

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def load(task, **options):
    return configs.load(CONFIGS[task], options)


def completed(task, root, **more):
    config = load(task)
    lines = places.complete_data(config, data_root=str(root), **more)
    return config, lines


@pytest.fixture
def copied(tmp_path, small_shapes):
    return Path(shutil.copytree(small_shapes.root, tmp_path / "set"))


def listed(folder, names):
    """A file of names."""
    path = folder / "listed.txt"
    path.write_text("\n".join(names) + "\n")
    return str(path)


def edit(root, change, split="val"):
    path = root / f"annotations/instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def built(config, split="val"):
    return DATASETS.build(dict(config[f"{split}_dataloader"].dataset, pipeline=[]))


# Where the data is.


def test_the_built_in_set_is_written_when_the_config_asks(tmp_path, monkeypatch, small_shapes):
    asked = []
    monkeypatch.setattr(places.shapes, "write", lambda root: asked.append(root) or small_shapes)
    config = load("detection")
    places.complete_data(config)
    assert asked == [places.SHAPES_ROOT]
    assert "data" not in config
    assert config.train_dataloader.dataset.data_root == str(small_shapes.root)


@pytest.mark.parametrize("task", CONFIGS)
def test_shapes_replace_the_data_of_any_config(task, monkeypatch, small_shapes):
    monkeypatch.setattr(places.shapes, "write", lambda root: small_shapes)
    large = {"detection": "mask_rcnn_swin_t", "segmentation": "upernet_swin_t"}[task]
    config = configs.load(ROOT / f"configs/{large}.py")
    places.complete_data(config, data="shapes")
    expected = shapes.CLASSES if task == "detection" else shapes.LABELS
    assert config.train_dataloader.dataset.metainfo.classes == expected
    assert len(built(config)) == 4
    if task == "segmentation":  # no longer ADE20K, whose value 0 would be lost
        table = built(config).label_table
        assert table.lookup(np.array([[0, 6]])).tolist() == [[0, 6]]


def test_another_built_in_set_is_refused():
    with pytest.raises(InputError, match=r"'shapes', not 'squares'"):
        places.complete_data(load("detection"), data="squares")


@pytest.mark.parametrize("task", CONFIGS)
def test_a_root_with_the_config_s_own_names(task, small_shapes):
    config, lines = completed(task, small_shapes.root)
    assert lines[0] == f"data: {small_shapes.root}"
    assert lines[1].startswith("train: ")
    assert lines[2].startswith("val: ")
    assert [config[name].dataset.data_root for name in LOADERS] == [str(small_shapes.root)] * 3
    assert len(built(config, "train")) == 9
    assert len(built(config, "test")) == 4


@pytest.mark.parametrize("task", CONFIGS)
def test_a_root_with_another_layout(task, tmp_path, copied):
    if task == "detection":
        for split in ("train", "val"):
            (copied / f"images/{split}").rename(copied / f"{split}2017")
            old = copied / f"annotations/instances_{split}.json"
            old.rename(copied / f"annotations/instances_{split}2017.json")
        names = ("train2017", "annotations/instances_val2017.json")
    else:
        shutil.rmtree(copied / "annotations")
        (copied / "label_maps").rename(copied / "annotations")
        for folder in ("images", "annotations"):
            (copied / folder / "train").rename(copied / folder / "training")
            (copied / folder / "val").rename(copied / folder / "validation")
        names = ("images/training", "annotations/validation")
    config, lines = completed(task, copied)
    train, val = (config[name].dataset for name in ("train_dataloader", "val_dataloader"))
    if task == "detection":
        assert (train.data_prefix.img, val.ann_file) == names
    else:
        assert (train.data_prefix.img_path, val.data_prefix.seg_map_path) == names
    assert all(name in lines[0] for name in names)
    assert len(built(config, "train")) == 9
    assert len(built(config, "test")) == 4  # the test split is the validation split
    assert config.test_dataloader.dataset == val


@pytest.mark.parametrize("task", CONFIGS)
def test_only_the_asked_split_must_be_there(task, copied):
    shutil.rmtree(copied / "images/train")
    _, lines = completed(task, copied, splits=("test",))
    assert lines[1].startswith("test: ")
    with pytest.raises(InputError, match="train"):
        completed(task, copied)


def test_a_root_that_is_not_there(tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        completed("detection", tmp_path / "nowhere")


def test_wrapped_data_sets_are_completed_too(small_shapes, tmp_path):
    config = load("detection")
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(type="RepeatDataset", times=3, dataset=inner)
    places.complete_data(
        config, data_root=str(small_shapes.root), classes=listed(tmp_path, ("ring", "star"))
    )
    inner = config.train_dataloader.dataset.dataset
    assert inner.data_root == str(small_shapes.root)
    assert inner.metainfo.classes == ("ring", "star")


# Which classes, and how large the heads are.


def heads(config):
    """num_classes of every head, by dotted place."""
    found = {}

    def walk(node, place):
        if isinstance(node, dict):
            if "num_classes" in node:
                found[place] = node["num_classes"]
            for key, value in node.items():
                walk(value, f"{place}.{key}".lstrip("."))

    walk(config.model, "")
    return found


def test_instances_take_the_classes_of_the_training_file(copied):
    edit(copied, lambda content: content["categories"].reverse(), "train")
    config, _ = completed("detection", copied)
    assert [config[name].dataset.metainfo.classes for name in LOADERS] == [shapes.CLASSES[::-1]] * 3
    assert heads(config) == {"roi_head.bbox_head": 6, "roi_head.mask_head": 6}


def test_a_subset_in_an_order_of_one_s_own(small_shapes, tmp_path):
    config, lines = completed(
        "detection", small_shapes.root, classes=listed(tmp_path, ("star", "circle"))
    )
    assert heads(config) == {"roi_head.bbox_head": 2, "roi_head.mask_head": 2}
    assert all(name in lines[1] for name in ("star", "circle"))
    assert "triangle" not in lines[1]
    content = json.loads(small_shapes.annotation_file("val").read_text())
    for number, sample in enumerate(built(config).load_data_list()):
        rows = [r for r in content["annotations"] if r["image_id"] == number + 1]
        wanted = [shapes.CATEGORY_IDS[name] for name in ("star", "circle")]
        expected = [wanted.index(r["category_id"]) for r in rows if r["category_id"] in wanted]
        assert [row["bbox_label"] for row in sample["instances"]] == expected


def test_classes_stated_in_a_config_win_over_the_file(small_shapes):
    config = load("detection")
    config.train_dataloader.dataset.metainfo = dict(classes=("cross", "ring"))
    places.complete_data(config, data_root=str(small_shapes.root))
    assert config.val_dataloader.dataset.metainfo.classes == ("cross", "ring")
    assert set(heads(config).values()) == {2}


def test_a_class_that_is_not_in_the_file(small_shapes, tmp_path):
    with pytest.raises(InputError, match=r"'rings' .* Did you mean 'ring'"):
        completed("detection", small_shapes.root, classes=listed(tmp_path, ("circle", "rings")))


@pytest.mark.parametrize("task", CONFIGS)
def test_the_built_heads_have_that_size(task, small_shapes, tmp_path):
    names = ("ring", "star") if task == "detection" else (*shapes.LABELS[:6], "x")
    config, _ = completed(task, small_shapes.root, classes=listed(tmp_path, names))
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    if task == "detection":
        assert model.roi_head.bbox_head.fc_cls.out_features == 3  # and the background
        assert model.roi_head.bbox_head.fc_reg.out_features == 8
        assert model.roi_head.mask_head.conv_logits.out_channels == 2
        assert model.rpn_head.rpn_cls.out_channels == 3  # object or not, of three shapes
    else:
        assert heads(config) == {"decode_head": 7, "auxiliary_head": 7}
        assert model.decode_head.conv_seg.out_channels == 7
        assert model.auxiliary_head.conv_seg.out_channels == 7
        assert model.decode_head.out_channels == model.auxiliary_head.num_classes == 7


def test_heads_in_a_list_are_sized_too(small_shapes):
    config = load("segmentation")
    config.model.auxiliary_head = [config.model.auxiliary_head, config.model.auxiliary_head]
    places.complete_data(config, data_root=str(small_shapes.root))
    assert [head.num_classes for head in config.model.auxiliary_head] == [7, 7]


# Label maps of things and stuff beside instances.


def htc():
    return configs.load(ROOT / "configs/htc_swin_b.py")


def test_the_semantic_head_counts_label_maps_not_objects(small_shapes):
    config = htc()
    lines = places.complete_data(config, data_root=str(small_shapes.root))
    assert heads(config) == {"roi_head.semantic_head": 183}
    boxes, masks = config.model.roi_head.bbox_head, config.model.roi_head.mask_head
    assert {head.num_classes for head in (*boxes, *masks)} == {6}
    train = config.train_dataloader.dataset
    assert train.semantic_classes == 183
    assert train.data_prefix.seg == "label_maps/train"
    assert any("label_maps/train: 9 label maps, 9 of them looked at" in line for line in lines)
    assert not [line for line in lines if "label_maps/val" in line]  # nothing there is asked for
    item = built(config, "train")[0]
    assert len(item["label_table"].classes) == 183


def test_label_maps_beside_instances_in_coco_s_layout(copied):
    (copied / "label_maps").rename(copied / "stuffthingmaps")
    for split in ("train", "val"):
        (copied / f"images/{split}").rename(copied / f"{split}2017")
        (copied / f"stuffthingmaps/{split}").rename(copied / f"stuffthingmaps/{split}2017")
        old = copied / f"annotations/instances_{split}.json"
        old.rename(copied / f"annotations/instances_{split}2017.json")
    config = htc()
    places.complete_data(config, data_root=str(copied))
    assert config.train_dataloader.dataset.data_prefix.seg == "stuffthingmaps/train2017"
    (copied / "stuffthingmaps").rename(copied / "label_maps")  # under COCO's names, ours
    config = htc()
    places.complete_data(config, data_root=str(copied))
    assert config.train_dataloader.dataset.data_prefix.seg == "label_maps/train2017"


def test_a_test_needs_no_label_maps_beside_instances(copied):
    shutil.rmtree(copied / "label_maps")
    places.complete_data(htc(), ("test",), data_root=str(copied))
    text = r"no folder .*stuffthingmaps/train\. .* Put COCO's there .*/cascade_mask_rcnn"
    with pytest.raises(MissingInputError, match=text):
        places.complete_data(htc(), data_root=str(copied))


def test_an_image_without_a_label_map_is_named(copied):
    (copied / "label_maps/train/000002.png").unlink()
    with pytest.raises(InputError, match=r"1 of 9 images have no label map: 000002\.png\."):
        places.complete_data(htc(), data_root=str(copied))
    completed("detection", copied)  # which needs none


def test_a_label_map_with_more_values_than_the_head(copied):
    path = copied / "label_maps/train/000003.png"
    labels = np.array(Image.open(path))
    labels[4, 5:7] = 183
    Image.fromarray(labels).save(path)
    text = r"label_maps/train for a semantic_head of num_classes=183 .*\n.*183 first in 000003\.png"
    with pytest.raises(InputError, match=text + r".* 183 \(2 pixels\)"):
        places.complete_data(htc(), data_root=str(copied))
    config = htc()
    config.model.roi_head.semantic_head.num_classes = 184
    places.complete_data(config, data_root=str(copied))
    assert config.train_dataloader.dataset.semantic_classes == 184


def test_a_semantic_head_without_label_maps(small_shapes):
    config = htc()
    del config.train_dataloader.dataset.data_prefix["seg"]
    with pytest.raises(InputError, match=r"the training data has none\. Use .*coco_htc\.py"):
        places.complete_data(config, data_root=str(small_shapes.root))


def test_label_maps_without_a_semantic_head(small_shapes):
    """The loader takes any value, and nothing else is asked of them."""
    config = load("detection")
    config.train_dataloader.dataset.data_prefix.seg = "label_maps/train"
    places.complete_data(config, data_root=str(small_shapes.root))
    assert "semantic_classes" not in config.train_dataloader.dataset
    assert heads(config) == {"roi_head.bbox_head": 6, "roi_head.mask_head": 6}


# The evaluators.


def test_evaluators_read_the_completed_file(small_shapes):
    config, _ = completed("detection", small_shapes.root)
    expected = str(small_shapes.annotation_file("val"))
    assert config.val_evaluator.ann_file == config.test_evaluator.ann_file == expected


def test_evaluators_of_one_s_own_are_left_alone(small_shapes):
    config = load("detection")
    config.val_evaluator = dict(type="CocoMetric", ann_file="mine.json")
    places.complete_data(config, data_root=str(small_shapes.root))
    assert config.val_evaluator.ann_file == "mine.json"


def test_a_list_of_evaluators_is_completed(small_shapes):
    config = load("detection")
    config.val_evaluator = [dict(type="swin_dense.CocoMetric", metric="bbox")]
    places.complete_data(config, data_root=str(small_shapes.root))
    expected = str(small_shapes.annotation_file("val"))
    assert config.val_evaluator[0].ann_file == expected


def test_a_config_without_validation(small_shapes):
    config = load("detection")
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    places.complete_data(config, ("train",), data_root=str(small_shapes.root))
    assert config.val_evaluator is None


# The same class under other positions and ids: labels and AP stay.


def permute(content):
    """Another order of the list, and other ids, of the same names; annotations follow."""
    order = [4, 2, 0, 5, 1, 3]
    ids = {c["id"]: 90 - 7 * place for place, c in enumerate(content["categories"])}
    content["categories"] = [content["categories"][i] for i in order]
    for entry in content["categories"]:
        entry["id"] = ids[entry["id"]]
    for row in content["annotations"]:
        row["category_id"] = ids[row["category_id"]]


def predictions(annotation_file, classes):
    """What a model trained for `classes` would answer: boxes a little off, one in five wrong."""
    rng = np.random.default_rng(8)
    content = json.loads(Path(annotation_file).read_text())
    name_of = {c["id"]: c["name"] for c in content["categories"]}
    samples = []
    for image in content["images"]:
        rows = [r for r in content["annotations"] if r["image_id"] == image["id"]]
        corners = np.array([r["bbox"] for r in rows], np.float32)
        corners[:, 2:] += corners[:, :2]
        corners += rng.integers(-2, 3, corners.shape)
        labels = [classes.index(name_of[r["category_id"]]) for r in rows]
        wrong = rng.random(len(rows)) < 0.2
        labels = np.where(wrong, rng.integers(0, len(classes), len(rows)), labels)
        found = dict(
            bboxes=torch.from_numpy(corners),
            labels=torch.from_numpy(labels),
            scores=torch.from_numpy(rng.random(len(rows), np.float32)),
        )
        samples.append(
            dict(
                img_id=image["id"],
                ori_shape=(image["height"], image["width"]),
                pred_instances=found,
            )
        )
    return samples


def evaluated(config, samples):
    metric = CocoMetric(config.val_evaluator.ann_file, metric="bbox")
    metric.dataset_meta = built(config).metainfo
    metric.process({}, samples)
    return metric.evaluate(len(samples)), metric.per_class


def test_permuted_categories_give_the_same_labels_and_ap(small_shapes, copied):
    edit(copied, permute)
    plain, _ = completed("detection", small_shapes.root)
    other, _ = completed("detection", copied)
    classes = plain.val_dataloader.dataset.metainfo.classes
    assert other.val_dataloader.dataset.metainfo.classes == classes == shapes.CLASSES
    for one, two in zip(built(plain).load_data_list(), built(other).load_data_list(), strict=True):
        assert [r["bbox_label"] for r in one["instances"]] == [
            r["bbox_label"] for r in two["instances"]
        ]
        assert [r["bbox"] for r in one["instances"]] == [r["bbox"] for r in two["instances"]]
    samples = predictions(small_shapes.annotation_file("val"), classes)
    numbers, per_class = evaluated(plain, samples)
    assert evaluated(other, samples) == (numbers, per_class)
    assert 0.1 < numbers["coco/bbox_mAP"] < 0.9
    assert len({row["bbox_AP"] for row in per_class.values()}) > 2  # a swap would show


def test_permuted_training_categories_give_the_names_their_own_heads(copied):
    """Training and validation disagree about positions; each object keeps its name."""
    edit(copied, permute, "train")
    config, _ = completed("detection", copied)
    classes = config.train_dataloader.dataset.metainfo.classes
    assert classes != shapes.CLASSES
    assert sorted(classes) == sorted(shapes.CLASSES)
    for split in ("train", "val"):
        path = copied / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        name_of = {c["id"]: c["name"] for c in content["categories"]}
        by_image = {i["id"]: [] for i in content["images"]}
        for row in content["annotations"]:
            by_image[row["image_id"]].append(name_of[row["category_id"]])
        for sample in built(config, split).load_data_list():
            names = [classes[row["bbox_label"]] for row in sample["instances"]]
            assert names == by_image[sample["img_id"]], split
    perfect = predictions(copied / "annotations/instances_val.json", classes)
    assert evaluated(config, perfect)[0]["coco/bbox_mAP"] > 0.1


# Label maps.


OTHER = np.array([[0, 1, 2], [5, 6, 255]])
OTHER_MEANS = [[IGNORE, 0, 1], [4, 5, IGNORE]]


def large():
    return configs.load(ROOT / "configs/upernet_swin_t.py")


def test_label_maps_whose_zero_means_other_by_a_config(copied):
    (copied / "classes.txt").unlink()
    config = large()
    for name in LOADERS:
        config[name].dataset.update(
            type="swin_dense.LabelMaps",
            first_value=1,
            ignore=(0, 255),
            metainfo=dict(classes=shapes.CLASSES),
        )
    lines = places.complete_data(config, data_root=str(copied))
    assert heads(config) == {"decode_head": 6, "auxiliary_head": 6}
    assert built(config).label_table.lookup(OTHER).tolist() == OTHER_MEANS
    assert "circle" in lines[1]
    assert "(ignored)" in lines[1]


def test_label_maps_whose_zero_means_other_by_the_file_in_the_root(copied):
    (copied / "classes.txt").write_text("\n".join(["(other)", *shapes.CLASSES]))
    config, _ = completed("segmentation", copied)
    assert heads(config) == {"decode_head": 6, "auxiliary_head": 6}
    for split in ("train", "val", "test"):
        assert built(config, split).label_table.lookup(OTHER).tolist() == OTHER_MEANS


def test_a_public_set_s_names_do_not_stand_for_other_files(copied):
    (copied / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"belong to another data set.*classes\.txt"):
        places.complete_data(large(), data_root=str(copied))


def test_ade20k_s_own_classes_size_the_heads(copied):
    (copied / "classes.txt").unlink()
    (copied / "annotations").rename(copied / "instances")
    (copied / "label_maps").rename(copied / "annotations")
    for folder in ("images", "annotations"):
        (copied / folder / "train").rename(copied / folder / "training")
        (copied / folder / "val").rename(copied / folder / "validation")
    config = large()
    places.complete_data(config, data_root=str(copied))
    assert heads(config) == {"decode_head": 150, "auxiliary_head": 150}
    assert len(config.val_dataloader.dataset.metainfo.classes) == 150
    assert built(config).label_table.lookup(np.array([[0, 1, 150]])).tolist() == [[IGNORE, 0, 149]]


def test_label_maps_with_classes_of_one_s_own_and_an_ignored_value(small_shapes, tmp_path):
    names = tuple(f"class {i}" for i in range(6))
    listing = listed(tmp_path, (*names, "(void)"))
    config, lines = completed("segmentation", small_shapes.root, classes=listing)
    assert heads(config) == {"decode_head": 6, "auxiliary_head": 6}
    for split in ("train", "val", "test"):
        found = built(config, split).label_table
        assert found.classes == names  # not those of classes.txt
        assert found.lookup(np.array([[0, 5, 6, 255]])).tolist() == [[0, 5, IGNORE, IGNORE]]
    assert "(ignored)" in lines[1]


def test_names_in_the_root_replace_ade20k_s_table(copied):
    """Its offset of one would turn the first class of another set into "other"."""
    config = large()
    places.complete_data(config, data_root=str(copied))
    assert heads(config) == {"decode_head": 7, "auxiliary_head": 7}
    assert built(config).label_table.lookup(np.array([[0, 6, 255]])).tolist() == [[0, 6, IGNORE]]


def test_the_names_of_the_built_in_shapes_are_not_given_to_other_data(copied):
    (copied / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"classes\.txt or a file given as `classes`"):
        completed("segmentation", copied)


def test_too_few_names_for_the_values(small_shapes, tmp_path):
    with pytest.raises(InputError, match=r"not in the table: .*6 \("):
        completed("segmentation", small_shapes.root, classes=listed(tmp_path, "abcdef"))


def test_a_derived_config_with_data_of_its_own_is_not_given_the_shapes(
    tmp_path, copied, monkeypatch
):
    """It inherits data = "shapes" from its base, and states a data_root."""
    monkeypatch.setattr(places.shapes, "write", lambda root: pytest.fail("took the built-in set"))
    loaders = "\n".join(f'{n} = dict(dataset=dict(data_root="{copied}"))' for n in LOADERS)
    path = tmp_path / "mine.py"
    path.write_text(f'_base_ = ["{CONFIGS["detection"]}"]\n{loaders}\n')
    config = configs.load(path)
    places.complete_data(config)
    assert config.train_dataloader.dataset.data_root == str(copied)


# What a task needs.


def test_boxes_alone_need_no_masks(small_shapes, tmp_path):
    """A detector without a mask head trains on annotations without outlines."""
    root = tmp_path / "boxes"
    shutil.copytree(small_shapes.root, root)
    for path in (root / "annotations").glob("instances_*.json"):
        content = json.loads(path.read_text())
        for row in content["annotations"]:
            del row["segmentation"]
        path.write_text(json.dumps(content))
    config = configs.load(ROOT / "configs/dino_swin_t.py")
    places.complete_data(config, data_root=str(root))
    image_sizes.scale_images(config, (150, 90))
    init_default_scope(config.default_scope)
    sample = DATASETS.build(config.train_dataloader.dataset)[0]["data_samples"]
    assert len(sample.gt_instances.bboxes) > 0
    assert config.model.bbox_head.num_classes == len(shapes.CLASSES)


# Segments, and heads that also count what is no object.


def panoptic(options=None):
    return configs.load(ROOT / "configs/mask2former_swin_t_panoptic.py", options)


def test_segments_are_completed(small_shapes):
    config = panoptic()
    lines = places.complete_data(config, data_root=str(small_shapes.root))
    assert "annotations/panoptic_train.json + images/train/" in lines[0]
    for name in LOADERS:
        dataset = config[name].dataset
        assert dataset.metainfo.classes == (*shapes.CLASSES, "background")
        assert dataset.metainfo.thing_classes == shapes.CLASSES
    assert config.val_dataloader.dataset.data_prefix == dict(
        img="images/val", seg="annotations/panoptic_val"
    )
    for part in (config.model.panoptic_head, config.model.panoptic_fusion_head):
        assert (part.num_things_classes, part.num_stuff_classes) == (6, 1)
    assert config.model.panoptic_head.loss_cls.class_weight == [1.0] * 7 + [0.1]
    assert built(config).metainfo["classes"] == (*shapes.CLASSES, "background")


def test_some_segments_in_an_order_of_one_s_own(small_shapes, tmp_path):
    config = panoptic()
    names = listed(tmp_path, ("background", "star", "circle"))
    places.complete_data(config, data_root=str(small_shapes.root), classes=names)
    assert config.val_dataloader.dataset.metainfo.classes == ("star", "circle", "background")
    assert config.model.panoptic_head.num_things_classes == 2
    assert config.model.panoptic_head.loss_cls.class_weight == [1.0] * 3 + [0.1]


def test_segments_follow_the_order_the_weights_were_trained_in(small_shapes):
    config = panoptic()
    places.complete_data(config, data_root=str(small_shapes.root))
    trained = (*shapes.CLASSES[::-1], "background")
    classes.set_classes(config, trained, shapes.CLASSES[::-1])
    assert built(config).metainfo["classes"] == trained
    with pytest.raises(InputError, match=r"trained with the things \['star'\]"):
        classes.set_classes(config, trained, ("star",))


def test_weights_that_know_no_things():
    with pytest.raises(InputError, match="which of its classes are things"):
        classes.set_classes(panoptic(), ("a", "b"))


@pytest.mark.parametrize(("part", "task"), [("panoptic_head", ""), ("decode_head", "_ade20k")])
def test_weights_of_classes_follow_their_number(part, task):
    config = configs.load(ROOT / f"configs/mask2former_swin_t{task}.py")
    classes.set_classes(config, ("a", "b", "c"))
    assert config.model[part].loss_cls.class_weight == [1.0] * 3 + [0.1]
    assert config.model[part].get("num_things_classes", 3) == 3
    assert config.model[part].get("num_stuff_classes", 0) == 0
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        head = getattr(MODELS.build(config.model), part)
    assert head.cls_embed.out_features == len(head.class_weight) == 4


def test_weights_of_single_classes_are_not_guessed():
    config = configs.load(ROOT / "configs/mask2former_swin_t.py")
    config.model.panoptic_head.loss_cls.class_weight = [1.0, 2.0, 0.1]
    classes.set_classes(config, ("a", "b"))
    assert config.model.panoptic_head.loss_cls.class_weight == [1.0, 2.0, 0.1]
    with pytest.raises(
        InputError, match=r"has 3 numbers, but the data has 3 classes: 4 are needed"
    ):
        classes.set_classes(config, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("name", "head", "key", "before", "after"),
    [
        ("upernet_swin_t", "decode_head", "loss_decode", [2.0] * 150, [2.0] * 3),
        ("upernet_swin_t", "auxiliary_head", "loss_decode", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ("mask_rcnn_swin_t", "bbox_head", "loss_cls", [1.0] * 80 + [0.5], [1.0] * 3 + [0.5]),
        ("retinanet_swin_t", "bbox_head", "loss_cls", None, None),
    ],
)
def test_weights_of_other_losses_follow_the_classes(name, head, key, before, after):
    config = configs.load(ROOT / f"configs/{name}.py")
    model = config.model.roi_head if "roi_head" in config.model else config.model
    model[head][key].class_weight = before
    classes.set_classes(config, ("a", "b", "c"))
    assert model[head][key].class_weight == after


def test_weights_of_other_losses_are_not_guessed():
    config = configs.load(ROOT / "configs/upernet_swin_t.py")
    config.model.decode_head.loss_decode.class_weight = [1.0, 2.0]
    with pytest.raises(InputError, match=r"loss_decode.class_weight has 2 .* 3 are needed\. State"):
        classes.set_classes(config, ("a", "b", "c"))


def test_a_test_set_without_annotations_is_written_not_judged(small_shapes, tmp_path):
    shutil.copytree(small_shapes.root, tmp_path / "set")
    path = tmp_path / "set/annotations/instances_val.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    config = configs.load(ROOT / "configs/mask_rcnn_swin_nano.py")
    with pytest.raises(InputError, match=r"that of a test set: .* format_only=True"):
        places.complete_data(config, ("test",), data_root=str(tmp_path / "set"))
    config.test_evaluator.update(format_only=True, outfile_prefix="out")
    places.complete_data(config, ("test",), data_root=str(tmp_path / "set"))
    assert len(config.test_dataloader.dataset.metainfo.classes) == len(content["categories"])


def label_maps_in(root, names, suffix=".png", sizes=((64, 96), (64, 96)), values=(0, 1)):
    """A set of label maps, two images of these sizes (height, width) in each split."""
    for split in ("train", "val"):
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True)
        for i, size in enumerate(sizes):
            raw = np.full(size, values[0], np.uint8)
            raw[: size[0] // 2] = values[1]
            Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / f"images/{split}/{i}.png")
            Image.fromarray(raw).save(root / f"annotations/{split}/{i}{suffix}")
    (root / "classes.txt").write_text("\n".join(names))
    return configs.load(ROOT / "configs/upernet_swin_nano.py")


def test_stated_suffixes_are_used(tmp_path):
    config = label_maps_in(tmp_path, ("sky", "road"), suffix="_mask.png")
    with pytest.raises(InputError, match="state img_suffix and seg_map_suffix"):
        places.complete_data(copy.deepcopy(config), data_root=str(tmp_path))
    for split in ("train", "val"):
        config[f"{split}_dataloader"].dataset.seg_map_suffix = "_mask.png"
    places.complete_data(config, data_root=str(tmp_path))
    built = DATASETS.build(config.val_dataloader.dataset)
    assert [Path(built[i]["data_samples"].seg_map_path).name for i in range(2)] == [
        "0_mask.png",
        "1_mask.png",
    ]


def test_label_me_s_list_names_no_value_by_its_first_line(tmp_path):
    config = label_maps_in(tmp_path, ("__ignore__", "_background_", "cell"))
    places.complete_data(config, data_root=str(tmp_path))
    assert tuple(config.train_dataloader.dataset.metainfo.classes) == ("_background_", "cell")


def test_one_class_alone_is_refused(tmp_path):
    config = label_maps_in(tmp_path, ("crack",), values=(0, 255))
    with pytest.raises(InputError, match=r"one class alone, 'crack'.* as in background"):
        places.complete_data(config, data_root=str(tmp_path))


@pytest.mark.parametrize(("second", "kept"), [((64, 96), 2), ((96, 64), 1)])
def test_images_of_several_sizes_are_judged_one_by_one(tmp_path, second, kept):
    config = label_maps_in(tmp_path, ("sky", "road"), sizes=((64, 96), second))
    config.val_dataloader.batch_size = 2
    lines = places.complete_data(config, data_root=str(tmp_path))
    assert config.val_dataloader.batch_size == kept
    assert any("val: batch_size 2 -> 1" in line for line in lines) == (kept == 1)
