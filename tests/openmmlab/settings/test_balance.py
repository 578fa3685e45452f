"""Weights of classes by hand, factors of images against mmengine's, and where they do not apply."""

import json

import numpy as np
import pytest
from conftest import CONFIGS, ROOT

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets import label_maps
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import balance, places
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings.sections import datasets_of
from swin_dense.registry import DATASETS

# Of three images, the pixels of classes a, b, c, and one that is nowhere.
PIXELS = np.array([[30, 10, 0, 0], [60, 0, 0, 0], [5, 10, 5, 0]])


def complete(name, root):
    config = configs.load(CONFIGS.get(name, ROOT / f"configs/{name}.py"))
    places.complete_data(config, ("train",), data_root=str(root))
    return config


def test_median_frequency_by_hand():
    # a: 95 of the 120 pixels of its images; b: 20 of 60; c: 5 of 20. The median is b's.
    expected = [(20 / 60) / (95 / 120), 1, (20 / 60) / (5 / 20), 1]
    np.testing.assert_allclose(balance.class_weights(PIXELS, "median"), expected)


def test_inverse_frequency_by_hand():
    # 120 / 95, 120 / 20, 120 / 5, over their mean; what is nowhere has 1.
    raw = np.array([120 / 95, 6, 24])
    expected = [*(raw / raw.mean()), 1]
    np.testing.assert_allclose(balance.class_weights(PIXELS, "inverse"), expected)


@pytest.mark.parametrize("kind", balance.KINDS)
def test_the_weights_are_those_of_the_counted_pixels(kind, small_shapes):
    config = complete("segmentation", small_shapes.root)
    (line,) = balance.weigh_classes(config, kind)
    maps = [
        label_maps.read_label_map(path)
        for path in sorted((small_shapes.root / "label_maps/train").iterdir())
    ]
    counts = np.array([[(m == value).sum() for value in range(7)] for m in maps])
    expected = balance.class_weights(counts, kind).round(4)
    for head in (config.model.decode_head, config.model.auxiliary_head):
        np.testing.assert_allclose(head.loss_decode.class_weight, expected)
    assert f"{kind} frequency, 9 label maps" in line
    assert "background" in line


def test_weights_that_a_config_states_stay(small_shapes):
    config = complete("segmentation", small_shapes.root)
    balance.weigh_classes(config, "median")
    with pytest.raises(InputError, match="states class_weight in loss_decode already"):
        balance.weigh_classes(config, "median")


def test_weights_of_pixels_are_not_for_objects(small_shapes):
    with pytest.raises(InputError, match="for label maps, where the loss counts pixels"):
        balance.weigh_classes(complete("detection", small_shapes.root), "median")


def test_a_model_that_weighs_no_pixels_is_named(small_shapes):
    config = complete("mask2former_swin_t_ade20k", small_shapes.root)
    with pytest.raises(InputError, match="Mask2FormerHead weighs the pixels by class"):
        balance.weigh_classes(config, "inverse")


@pytest.mark.parametrize("threshold", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("name", ["detection", "mask2former_swin_t_panoptic"])
def test_factors_are_mmengine_s(name, threshold, small_shapes):
    config = complete(name, small_shapes.root)
    (line,) = balance.repeat_images(config, threshold)
    wrapped = config.train_dataloader.dataset
    assert wrapped.type == "ClassBalancedDataset"
    inner = dict(wrapped.dataset, pipeline=[])
    built = DATASETS.build(dict(wrapped, dataset=inner))
    shown = [built.dataset.get_cat_ids(i) for i in range(len(built.dataset))]
    _, found = balance.repeat_factors(shown, threshold)
    assert found == built._get_repeat_factors(built.dataset, threshold)
    assert f"{len(shown)} images come as {len(built)}" in line or max(found) == 1
    assert datasets_of(config, ("train",))[0].metainfo.classes


def test_labels_of_segments_are_those_of_the_file(small_shapes):
    config = complete("mask2former_swin_t_panoptic", small_shapes.root)
    built = DATASETS.build(dict(datasets_of(config, ("train",))[0], pipeline=[]))
    content = json.loads(small_shapes.panoptic_file("train").read_text())
    names = {c["id"]: c["name"] for c in content["categories"]}
    expected = {
        e["image_id"]: sorted(names[s["category_id"]] for s in e["segments_info"])
        for e in content["annotations"]
    }
    for i in range(len(built)):
        found = sorted(built.metainfo["classes"][label] for label in built.get_cat_ids(i))
        assert found == expected[built.get_data_info(i)["img_id"]]


def test_factors_by_hand():
    """Four images; b is in one of them: sqrt(0.64 / 0.25); a in three: below its share of 0.75."""
    by_class, by_image = balance.repeat_factors([[0], [0, 0], [0, 1], []], 0.64)
    assert by_class == {0: 1.0, 1: pytest.approx(1.6)}
    assert by_image == [1.0, 1.0, pytest.approx(1.6), 1.0]


def test_repetition_is_refused_where_it_does_not_apply(small_shapes):
    with pytest.raises(InputError, match="For label maps, weigh the classes' pixels"):
        balance.repeat_images(complete("segmentation", small_shapes.root), 0.1)
    config = complete("detection", small_shapes.root)
    balance.repeat_images(config, 0.1)
    with pytest.raises(InputError, match="is a ClassBalancedDataset already"):
        balance.repeat_images(config, 0.1)
