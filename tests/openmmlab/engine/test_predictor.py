"""One image in, a typed result out; two models of different tasks side by side, in threads too."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.checkpoints import files
from swin_dense.datasets import shapes
from swin_dense.datasets.sources import Picture, Source
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import predictor as predictors
from swin_dense.openmmlab.engine.predictor import Predictor
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import image_sizes
from swin_dense.openmmlab.settings.classes import set_classes
from swin_dense.report.results import Instances, LabelMap

pytestmark = pytest.mark.plain

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
        torch.manual_seed(4)
        with MODELS.switch_scope_and_registry(config.default_scope) as registry:
            model = registry.build(config.model)
        if task == "detection":
            torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.3)
        meta = {"dataset_meta": {"classes": classes}}
        found[task] = str(folder / f"{task}.pth")
        torch.save({"state_dict": model.state_dict(), "meta": meta}, found[task])
    return found


@pytest.fixture(scope="module")
def detector(checkpoints):
    return Predictor(load("detection"), files.read(checkpoints["detection"]))


@pytest.fixture(scope="module")
def segmentor(checkpoints):
    return Predictor(load("segmentation"), files.read(checkpoints["segmentation"]))


@pytest.fixture(scope="module")
def picture(small_shapes):
    return np.asarray(Image.open(small_shapes.image_dir("val") / "000002.png"))


def test_an_image_with_fewer_places_than_queries_is_the_users_mistake(
    detector, picture, monkeypatch
):
    monkeypatch.setattr(detector.model, "test_step", lambda _: torch.zeros(3).topk(4))
    with pytest.raises(InputError, match=r"at least model\.num_queries places"):
        detector.predict(picture)


def found(masks=True):
    """Four made-up instances in an image of 9x13, not sorted by score."""
    data = InstanceData(
        labels=torch.tensor([5, 0, 3, 0]),
        scores=torch.tensor([0.25, 0.87654, 0.5, 0.1]),
        bboxes=torch.tensor(
            [[0, 1, 4.126, 5], [2.5, 3, 9, 8.0], [1, 1, 3, 4], [0, 0, 1, 1]], dtype=torch.float32
        ),
    )
    if masks:
        data.masks = torch.zeros(4, 9, 13, dtype=torch.bool)
        data.masks[1, 3:8, 2:9] = True
        data.masks[0, 1:5, 0:4] = True
    return data


SMALL_IMAGE = np.zeros((9, 13, 3), np.uint8)


def instances(least, masks=True):
    return predictors._instances(found(masks), SMALL_IMAGE, shapes.CLASSES, least)


def test_instances_come_best_first():
    result = instances(0.0)
    assert result.scores.tolist() == pytest.approx([0.87654, 0.5, 0.25, 0.1])
    assert result.names == ("circle", "star", "cross", "circle")
    assert result.boxes[2].tolist() == pytest.approx([0, 1, 4.126, 5])
    assert (result.boxes.dtype, result.boxes.shape) == (np.float32, (4, 4))


@pytest.mark.parametrize(("least", "count"), [(0.0, 4), (0.25, 3), (0.26, 2), (0.9, 0)])
def test_weaker_instances_are_left_out(least, count):
    assert len(instances(least)) == count
    assert instances(least).masks.shape == (count, 9, 13)


def test_masks_are_those_of_their_own_instance():
    masks = instances(0.2).masks
    expected = np.zeros((9, 13), bool)
    expected[3:8, 2:9] = True
    assert masks.dtype == bool
    assert np.array_equal(masks[0], expected)
    assert masks[2].sum() == 16


def test_a_detector_without_masks():
    assert instances(0.3, masks=False).masks is None
    assert len(instances(0.3, masks=False)) == 2


def test_instances_of_a_picture_lie_in_it(detector, picture):
    result = detector.predict(picture, score=0)
    height, width = picture.shape[:2]
    assert isinstance(result, Instances)
    assert result.image is picture
    assert len(result)
    left, top, right, bottom = result.boxes.T
    assert (left >= 0).all()
    assert (left <= right).all()
    assert (right <= width).all()
    assert (top >= 0).all()
    assert (top <= bottom).all()
    assert (bottom <= height).all()
    assert result.masks.shape == (len(result), height, width)
    assert set(result.names) <= set(shapes.CLASSES)


def test_a_label_map_has_the_size_of_the_picture(segmentor, picture):
    result = segmentor.predict(picture)
    assert isinstance(result, LabelMap)
    assert result.labels.shape == picture.shape[:2]
    assert np.issubdtype(result.labels.dtype, np.integer)
    assert set(np.unique(result.labels)) <= set(range(7))


def test_a_path_and_a_picture_in_memory_are_looked_at_alike(segmentor, small_shapes, picture):
    path = small_shapes.image_dir("val") / "000002.png"
    expected = segmentor.predict(picture).labels
    for image in (path, str(path), Image.open(path)):
        assert np.array_equal(segmentor.predict(image).labels, expected)


def test_what_cannot_be_looked_at(detector, small_shapes):
    missing = small_shapes.image_dir("val") / "000022.png"
    with pytest.raises(InputError, match=r"the image does not exist\. .* Did you mean '0000"):
        detector.predict(missing)
    with pytest.raises(
        InputError, match=r"float64 of \(64, 96, 3\)\. Bring the values to 0 to 255"
    ):
        detector.predict(np.zeros((64, 96, 3)))
    with pytest.raises(InputError, match=r"an image of 2000x1 pixels cannot be resized"):
        detector.predict(np.zeros((1, 2000, 3), np.uint8))


def test_scores_are_asked_for_where_there_are_some(detector, segmentor, picture):
    with pytest.raises(InputError, match=r"score: scores are 0 to 1, got 30\."):
        detector.predict(picture, score=30)
    with pytest.raises(InputError, match=r"score: every pixel has a class here"):
        segmentor.predict(picture, score=0.3)


def test_annotations_of_the_pipeline_are_not_asked_for(checkpoints, picture):
    """As in the test pipelines of mmdet and mmseg."""
    for task, first in (("detection", "mmdet.LoadImageFromFile"), ("segmentation", "LoadImage")):
        config = load(task)
        steps = config.test_dataloader.dataset.pipeline
        more = dict(type="LoadAnnotations")
        config.test_dataloader.dataset.pipeline = [dict(type=first), *steps[1:-1], more, steps[-1]]
        Predictor(config, files.read(checkpoints[task])).predict(picture)


@pytest.mark.parametrize("which", ["detector", "segmentor"])
def test_the_model_sees_normalised_red_green_blue(which, request):
    """By hand: (200 - 123.675) / 58.395 for red, and so on; padding lies below and to the right."""
    predictor = request.getfixturevalue(which)
    seen = []
    handle = predictor.model.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    flat = np.full((64, 96, 3), (200, 90, 40), np.uint8)
    predictor.predict(flat)
    handle.remove()
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    expected = (np.array([200, 90, 40]) - mean) / std
    np.testing.assert_allclose(seen[0][0, :, 5, 7].numpy(), expected, rtol=1e-5)


def same(one, two):
    return one.to_json() == two.to_json()


@pytest.fixture
def scopes():
    """Gives the scopes that mmengine knows, to compare; none may come or go."""
    return lambda: [name for name in DefaultScope._instance_dict if "overwrite" not in name]


def test_two_tasks_in_one_process(checkpoints, picture, scopes):
    before = scopes()
    one = Predictor(load("detection"), files.read(checkpoints["detection"]))
    alone = one.predict(picture, score=0)
    two = Predictor(load("segmentation"), files.read(checkpoints["segmentation"]))
    beside = two.predict(picture)
    assert same(one.predict(picture, score=0), alone)
    three = Predictor(load("detection"), files.read(checkpoints["detection"]))
    assert same(three.predict(picture, score=0), alone)
    assert same(two.predict(picture), beside)
    assert (one.classes, two.classes) == (shapes.CLASSES, shapes.LABELS)
    assert scopes() == before


def test_threads_with_models_of_two_tasks(detector, segmentor, picture):
    """Each of four threads starts at the same moment and sees what one thread alone sees."""
    rng = np.random.default_rng(3)
    pictures = [picture, rng.integers(0, 256, (90, 70, 3)).astype(np.uint8)]
    jobs = [(model, image) for model in (detector, segmentor) for image in pictures]
    scores = {detector: 0, segmentor: None}
    alone = [model.predict(image, scores[model]) for model, image in jobs]
    start = threading.Barrier(len(jobs))

    def look(job):
        model, image = job
        start.wait()
        return [model.predict(image, scores[model]) for _ in range(3)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for expected, results in zip(alone, pool.map(look, jobs), strict=True):
            assert all(same(result, expected) for result in results)


def test_threads_that_load_models_of_two_tasks(checkpoints, picture):
    start = threading.Barrier(4)

    def one(task):
        start.wait()
        model = predictors.load(CONFIGS[task], checkpoints[task], device="cpu")
        return model.predict(picture).to_json()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, ["detection", "segmentation"] * 2))
    assert results[0] == results[2]
    assert results[1] == results[3]
    assert "label_map" in results[1]


def test_weights_that_name_no_classes(checkpoints, tmp_path):
    content = torch.load(checkpoints["detection"], weights_only=True)
    torch.save({"state_dict": content["state_dict"]}, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=r"bare\.pth does not say which classes"):
        Predictor(load("detection"), files.read(tmp_path / "bare.pth"))


def test_weights_of_the_other_task(checkpoints):
    with pytest.raises(InputError, match=r"(?s)does not fit this model: 100%"):
        Predictor(load("segmentation"), files.read(checkpoints["detection"]))


def test_segments_by_hand():
    """Two circles and a ring; the second circle is too unsure, 6 is where nothing was found."""
    found = PixelData(
        sem_seg=torch.tensor([[[6, 1000, 1000, 4], [6, 4, 4, 4], [2000, 6, 6, 6]]]),
        metainfo={"scores": {1000: 0.91234, 2000: 0.2, 4: 0.5}},
    )

    def segments(least):
        image = np.zeros((3, 4, 3), np.uint8)
        return predictors._segments(found, image, shapes.CLASSES, ("circle",), least)

    result = segments(0.3)
    assert result.ids.tolist() == [[0, 2, 2, 1], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert list(result) == [(1, "ring", 4, False, 0.5, 4), (2, "circle", 0, True, 0.91234, 2)]
    assert len(segments(0.0)) == 3
    assert not segments(0.95).ids.any()
    assert list(segments(0.95)) == []


@pytest.fixture(scope="module")
def val(small_shapes):
    return sorted(small_shapes.image_dir("val").glob("*.png"))


def alike(one, other):
    """Compare results of two ways to the same image: to rounding, which may swap equal scores."""
    assert (one.name, one.classes) == (other.name, other.classes)
    assert np.array_equal(one.image, other.image)
    if isinstance(one, LabelMap):
        return (one.labels != other.labels).mean() < 0.002
    assert one.scores == pytest.approx(other.scores, abs=1e-4)
    alone = np.column_stack([one.boxes, one.labels * 100, one.scores * 100])
    batch = np.column_stack([other.boxes, other.labels * 100, other.scores * 100])
    distance = np.abs(alone[:, None] - batch[None]).max(-1)
    partner = distance.argmin(1)
    differ = (np.asarray(one.masks) != np.asarray(other.masks)[partner]).mean()
    return (distance.min(1) < 0.01).mean() > 0.97 and differ < 0.005


@pytest.mark.parametrize("task", list(CLASSES))
@pytest.mark.parametrize("batch", [1, 3])
def test_a_stream_of_batches_is_one_image_after_the_other(request, val, picture, task, batch):
    """Four images of one size, then one of another, which is looked at by itself."""
    model = request.getfixturevalue("detector" if task == "detection" else "segmentor")
    tall = np.rot90(picture).copy()
    found = list(model.stream([*val, tall], batch=batch))
    alone = [*map(model.predict, map(str, val)), model.predict([tall])[0]]
    assert [result.name for result in found] == [*map(str, val), "4"]
    alone[4] = replace(alone[4], name="4")
    assert all(map(alike, found, alone))


def test_many_images_give_a_list_and_one_gives_a_result(segmentor, val, picture):
    assert isinstance(segmentor.predict(picture), LabelMap)
    assert segmentor.predict([picture])[0].name == "0"
    folder = segmentor.predict(val[0].parent)
    assert [result.name for result in folder] == [str(path) for path in val]
    assert segmentor.predict([]) == []
    with pytest.raises(InputError, match=r"2: this has no end\. `stream` gives each"):
        segmentor.predict(2)


def test_results_are_given_while_the_source_goes_on(segmentor, picture):
    """A camera has no end: its first result does not wait for it."""
    read = []

    def pictures():
        while True:
            read.append(1)
            assert len(read) < 9
            yield picture

    endless = Source(lambda: (Picture(str(i), rgb.copy) for i, rgb in enumerate(pictures())), None)
    found = segmentor.stream(endless, batch=2)
    assert [next(found).name, next(found).name, next(found).name] == ["0", "1", "2"]
    found.close()


def test_a_picture_that_cannot_be_read_is_left_out_where_asked(segmentor, val, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(val[0].read_bytes()[:60])
    row = [val[0], broken, val[1]]
    skipped = []
    found = list(segmentor.stream(row, skip=lambda *about: skipped.append(about), batch=2))
    assert [result.name for result in found] == [str(val[0]), str(val[1])]
    [(picture, error)] = skipped
    assert picture.name == str(broken)
    assert "broken.png: the image is cut off" in str(error)
    taken = segmentor.stream(row)
    assert next(taken).name == str(val[0])
    with pytest.raises(InputError, match="broken"):
        next(taken)


def test_of_objects_that_cover_one_another_the_surest_is_kept(detector, picture, monkeypatch):
    """Boxes of made-up instances: 1 within 2, its IoU 8/9; 3 beside them."""
    data = InstanceData(
        labels=torch.tensor([5, 0, 3]),
        scores=torch.tensor([0.9, 0.8, 0.7]),
        bboxes=torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]], dtype=torch.float32),
        masks=torch.ones(3, *picture.shape[:2], dtype=torch.bool),
    )
    looked = DetDataSample(pred_instances=data)
    monkeypatch.setattr(detector.model, "test_step", lambda batch: [looked])
    assert len(detector.predict(picture)) == 3
    found = detector.predict(picture, class_agnostic=True)
    assert found.labels.tolist() == [5, 3]
    assert found.masks.shape == (2, *picture.shape[:2])


@pytest.mark.parametrize("task", list(CLASSES))
def test_bf16_finds_what_float32_does_to_its_rounding(request, checkpoints, picture, task):
    model = request.getfixturevalue("detector" if task == "detection" else "segmentor")
    half = Predictor(load(task), files.read(checkpoints[task]), precision="bf16")
    one, other = model.predict(picture, **({"score": 0.0} if task == "detection" else {})), None
    other = half.predict(picture, **({"score": 0.0} if task == "detection" else {}))
    if task == "segmentation":
        assert 0 < (one.labels != other.labels).mean() < 0.2
    else:
        assert other.scores.dtype == other.boxes.dtype == np.float32
        assert other.scores[:5] == pytest.approx(one.scores[:5], abs=0.05)
        assert not np.array_equal(other.scores[:5], one.scores[:5])


@pytest.mark.parametrize("task", list(CLASSES))
def test_of_an_image_and_its_mirror_image_the_same_is_found_mirrored(request, picture, task):
    """A model alone is not so: its windows begin at the left."""
    model = request.getfixturevalue("detector" if task == "detection" else "segmentor")
    turned = np.ascontiguousarray(picture[:, ::-1])
    one, other = (model.predict(image, mirror=True) for image in (picture, turned))
    alone = model.predict(picture)
    if task == "segmentation":
        assert np.array_equal(one.labels, other.labels[:, ::-1])
        assert not np.array_equal(one.labels, alone.labels)
        return
    left, top, right, bottom = other.boxes.T
    boxes = np.stack([104 - right, top, 104 - left, bottom], axis=1)
    order, back = (np.lexsort(x.round(2).T) for x in (one.boxes, boxes))
    assert one.boxes[order] == pytest.approx(boxes[back], abs=1e-3)
    assert one.scores[order] == pytest.approx(other.scores[back], abs=1e-5)
    masks = np.asarray(other.masks)[back][:, :, ::-1]
    assert np.array_equal(np.asarray(one.masks)[order], masks)
    assert not np.array_equal(one.boxes, alone.boxes)


@pytest.mark.parametrize(
    ("task", "how", "text"),
    [
        ("detection", {"batch": 0}, "batch: at least 1 image at once, got 0"),
        ("detection", {"score": 2}, "scores are 0 to 1"),
        ("segmentation", {"class_agnostic": True}, "nothing covers anything"),
    ],
)
def test_what_means_nothing_is_refused_before_the_first_image(request, task, how, text):
    model = request.getfixturevalue("detector" if task == "detection" else "segmentor")
    with pytest.raises(InputError, match=text):
        model.stream([], **how)


def test_an_unknown_precision_is_refused(checkpoints):
    with pytest.raises(InputError, match="precision: one of float32, bf16, half, got 'fp8'"):
        Predictor(load("detection"), files.read(checkpoints["detection"]), precision="fp8")
