"""One image in, plain rows or a label map out; and two models of different tasks side by side."""

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from pycocotools import mask as rle

import swin_dense.openmmlab  # noqa: F401
from swin_dense.datasets import shapes
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import image_sizes
from swin_dense.openmmlab.settings.classes import set_classes

CLASSES = {"detection": shapes.CLASSES, "segmentation": shapes.LABELS}


def load(task):
    config = configs.load(CONFIGS[task])
    image_sizes.scale_images(config, (96, 64))
    return config


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Task -> a file of random weights; the scores of the detector are made to differ."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for task, classes in CLASSES.items():
        config = load(task)
        set_classes(config, classes)
        init_default_scope(config.default_scope)
        torch.manual_seed(4)
        model = MODELS.build(config.model)
        if task == "detection":
            torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.3)
        meta = {"dataset_meta": {"classes": classes}}
        found[task] = str(folder / f"{task}.pth")
        torch.save({"state_dict": model.state_dict(), "meta": meta}, found[task])
    return found


@pytest.fixture(scope="module")
def detector(checkpoints):
    return Predictor(load("detection"), checkpoints["detection"])


@pytest.fixture(scope="module")
def segmentor(checkpoints):
    return Predictor(load("segmentation"), checkpoints["segmentation"])


@pytest.fixture(scope="module")
def picture(small_shapes):
    return np.asarray(Image.open(small_shapes.image_dir("val") / "000002.png"))


def test_an_image_with_fewer_places_than_queries_is_the_users_mistake(
    detector, picture, monkeypatch
):
    monkeypatch.setattr(detector.model, "test_step", lambda _: torch.zeros(3).topk(4))
    with pytest.raises(InputError, match=r"at least model\.num_queries places"):
        detector(picture)


def sample(masks=True):
    """Four made-up instances in an image of 9x13, not sorted by score."""

    class Sample:
        pred_instances = InstanceData(
            labels=torch.tensor([5, 0, 3, 0]),
            scores=torch.tensor([0.25, 0.87654, 0.5, 0.1]),
            bboxes=torch.tensor(
                [[0, 1, 4.126, 5], [2.5, 3, 9, 8.0], [1, 1, 3, 4], [0, 0, 1, 1]],
                dtype=torch.float32,
            ),
        )

    if masks:
        pixels = torch.zeros(4, 9, 13, dtype=torch.bool)
        pixels[1, 3:8, 2:9] = True
        pixels[0, 1:5, 0:4] = True
        Sample.pred_instances.masks = pixels
    return Sample


def test_instances_come_best_first(detector):
    rows = detector.instances(sample(), 0.0)
    assert [row["score"] for row in rows] == [0.8765, 0.5, 0.25, 0.1]
    assert [row["class"] for row in rows] == ["circle", "star", "cross", "circle"]
    assert rows[2]["box"] == [0.0, 1.0, 4.13, 5.0]
    assert all(type(side) is float for row in rows for side in row["box"])


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 4), (0.25, 3), (0.26, 2), (0.9, 0)])
def test_weaker_instances_are_left_out(detector, threshold, count):
    rows = detector.instances(sample(), threshold)
    assert [row["score"] for row in rows] == [0.8765, 0.5, 0.25, 0.1][:count]


def test_masks_are_coco_run_lengths_of_their_own_instance(detector):
    rows = detector.instances(sample(), 0.2)
    expected = np.zeros((9, 13), np.uint8)
    expected[3:8, 2:9] = 1
    assert np.array_equal(rle.decode(rows[0]["mask"]), expected)
    assert rle.decode(rows[2]["mask"]).sum() == 16
    assert rows[0]["mask"]["size"] == [9, 13]


def test_a_detector_without_masks(detector):
    rows = detector.instances(sample(masks=False), 0.3)
    assert [set(row) for row in rows] == [{"class", "score", "box"}] * 2


def test_instances_of_a_picture_lie_in_it(detector, picture):
    found = detector(picture)
    rows = detector.instances(found, 0.0)
    height, width = picture.shape[:2]
    assert rows
    for row in rows:
        left, top, right, bottom = row["box"]
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
        assert row["mask"]["size"] == [height, width]
        assert row["class"] in shapes.CLASSES
    drawn = detector.draw_instances(picture, found, 0.0)
    assert (drawn.shape, drawn.dtype) == (picture.shape, np.uint8)
    assert not np.array_equal(drawn, picture)


def test_a_label_map_has_the_size_of_the_picture(segmentor, picture):
    labels = segmentor.label_map(segmentor(picture))
    assert labels.shape == picture.shape[:2]
    assert np.issubdtype(labels.dtype, np.integer)
    assert set(np.unique(labels)) <= set(range(7))


@pytest.mark.parametrize("which", ["detector", "segmentor"])
def test_the_model_sees_normalised_red_green_blue(which, request):
    """By hand: (200 - 123.675) / 58.395 for red, and so on; padding lies below and to the right."""
    predictor = request.getfixturevalue(which)
    seen = []
    handle = predictor.model.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    flat = np.full((64, 96, 3), (200, 90, 40), np.uint8)
    predictor(flat)
    handle.remove()
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = (np.array([200, 90, 40]) - mean) / std
    np.testing.assert_allclose(seen[0][0, :, 5, 7].numpy(), expected, rtol=1e-5)


def test_two_tasks_in_one_process(checkpoints, picture):
    def rows(predictor):
        return predictor.instances(predictor(picture), 0.0)

    def labels(predictor):
        return predictor.label_map(predictor(picture))

    one = Predictor(load("detection"), checkpoints["detection"])
    alone = rows(one)
    two = Predictor(load("segmentation"), checkpoints["segmentation"])
    beside = labels(two)
    assert rows(one) == alone  # the scope is the other task's by now
    three = Predictor(load("detection"), checkpoints["detection"])
    assert rows(three) == alone
    assert np.array_equal(labels(two), beside)
    assert (one.classes, two.classes) == (shapes.CLASSES, shapes.LABELS)
    assert len(one.visualizer.dataset_meta["palette"]) == 6
    assert one.draw_instances(picture, one(picture), 0.0).shape == picture.shape


def test_weights_that_name_no_classes(checkpoints, tmp_path):
    content = torch.load(checkpoints["detection"], weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=r"bare\.pth does not say which classes"):
        Predictor(load("detection"), str(tmp_path / "bare.pth"))


def test_weights_of_the_other_task(checkpoints):
    with pytest.raises(InputError, match=r"(?s)does not fit this model: 100%"):
        Predictor(load("segmentation"), checkpoints["detection"])


def test_a_trained_run_predicts(trained, picture):
    task, _, work = trained
    for name in ("iter_8.pth", "weights_fp16.safetensors"):
        predictor = Predictor(load(task), str(work / name))
        assert predictor.segmentation == (task == "segmentation")
        assert predictor.classes == CLASSES[task]
        assert predictor(picture).ori_shape == picture.shape[:2]


def test_segments_by_hand(detector):
    """Two circles and a ring; the second circle is too unsure, 6 is where nothing was found."""

    class Sample:
        pred_panoptic_seg = PixelData(
            sem_seg=torch.tensor([[[6, 1000, 1000, 4], [6, 4, 4, 4], [2000, 6, 6, 6]]]),
            metainfo={"scores": {1000: 0.91234, 2000: 0.2, 4: 0.5}},
        )

    found, rows = detector.segments(Sample, 0.3)
    assert found.tolist() == [[0, 2, 2, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert [(r["id"], r["class"], r["score"], r["area"]) for r in rows] == [
        (1, "ring", 0.5, 4),
        (2, "circle", 0.9123, 2),
    ]
    assert len(detector.segments(Sample, 0.0)[1]) == 3
    none, rows = detector.segments(Sample, 0.95)
    assert (none.any(), rows) == (False, [])
