"""Our commands read by our readers, plain OpenMMLab by its own, and both see the same."""

import numpy as np
import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.datasets import ADE20K, LabelMaps
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import readers
from swin_dense.registry import DATASETS, TRANSFORMS

IMAGE, LABELS = dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")
OUR_IMAGE, OUR_LABELS = dict(type="swin_dense.LoadImage"), dict(type="swin_dense.LoadLabelMap")


def swapped(dataset):
    return readers.with_ours(dict(batch_size=3, dataset=dataset))["dataset"]


@pytest.mark.parametrize("library", ["", "mmcv.", "mmdet.", "mmseg."])
def test_images_of_any_data_set(library):
    pipeline = [dict(type=f"{library}LoadImageFromFile", backend_args=None), dict(type="Resize")]
    found = swapped(dict(type="CocoDataset", pipeline=pipeline))
    assert found["pipeline"] == [OUR_IMAGE, dict(type="Resize")]
    assert pipeline[0]["type"] == f"{library}LoadImageFromFile"  # the config stays as it is


@pytest.mark.parametrize(
    "step",
    [
        dict(IMAGE, to_float32=True),
        dict(IMAGE, color_type="grayscale"),
        dict(IMAGE, backend_args=dict(backend="petrel")),
        dict(IMAGE, imdecode_backend="tifffile"),
        dict(IMAGE, new_argument=1),
        dict(type="mine.LoadImageFromFile"),
        dict(LABELS, reduce_zero_label=True),
        dict(LABELS, backend_args=dict(backend="petrel")),
    ],
    ids=str,
)
def test_what_our_readers_do_not_honour_is_left_alone(step):
    assert swapped(dict(type="swin_dense.LabelMaps", pipeline=[step]))["pipeline"] == [step]


def test_label_maps_where_the_data_set_has_a_table():
    pipeline = [IMAGE, dict(type="Resize"), LABELS]
    for kind in ("swin_dense.LabelMaps", "swin_dense.ADE20K", ADE20K):
        found = swapped(dict(type=kind, pipeline=pipeline))["pipeline"]
        assert found == [OUR_IMAGE, dict(type="Resize"), OUR_LABELS]
    found = swapped(dict(type="ADE20KDataset", pipeline=pipeline))["pipeline"]
    assert found == [OUR_IMAGE, dict(type="Resize"), LABELS]


def test_label_maps_beside_boxes():
    boxes = dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True, poly2mask=False)
    both = dict(boxes, with_seg=True)
    ours = dict(type="swin_dense.CocoInstances")
    assert swapped(dict(ours, pipeline=[both]))["pipeline"] == [boxes, OUR_LABELS]
    assert swapped(dict(ours, pipeline=[boxes]))["pipeline"] == [boxes]
    for other in (dict(both, reduce_zero_label=True), dict(both, ignore_index=0)):
        assert swapped(dict(ours, pipeline=[other]))["pipeline"] == [other]
    assert swapped(dict(type="CocoDataset", pipeline=[both]))["pipeline"] == [both]


def test_wrapped_and_joined_sets():
    inner = dict(type="swin_dense.LabelMaps", pipeline=[IMAGE, LABELS])
    wrapped = dict(type="RepeatDataset", dataset=dict(type="ConcatDataset", datasets=[inner, "x"]))
    found = swapped(wrapped)["dataset"]["datasets"]
    assert found == [dict(inner, pipeline=[OUR_IMAGE, OUR_LABELS]), "x"]
    mixed = dict(type="MultiImageMixDataset", pipeline=[dict(type="Mosaic")], dataset=inner)
    assert swapped(mixed)["pipeline"] == [dict(type="Mosaic")]
    assert readers.with_ours(None) is None


# What both read.


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_both_read_the_same_image(tmp_path, mode, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    smooth = Image.fromarray(pixels).resize((106, 74), Image.Resampling.BICUBIC)
    path = tmp_path / f"image{suffix}"
    smooth.convert(mode).save(path, **({"quality": 88} if suffix == ".jpg" else {}))
    init_default_scope("mmseg")
    plain, ours = (
        TRANSFORMS.build(step)({"img_path": str(path), "seg_fields": []})
        for step in (dict(type="mmcv.LoadImageFromFile"), OUR_IMAGE)
    )
    assert plain.keys() == ours.keys()
    assert np.array_equal(plain["img"], ours["img"])
    assert plain["img"].dtype == ours["img"].dtype
    assert plain["img_shape"] == ours["img_shape"] == plain["ori_shape"] == ours["ori_shape"]


NAMES = tuple("abcde")
TABLES = {
    "as they are": (LabelMaps, dict(metainfo=dict(classes=NAMES)), [0, 1, 2, 3, 4, 255]),
    "from 1, 0 is other": (
        LabelMaps,
        dict(metainfo=dict(classes=NAMES), first_value=1, ignore=(0,)),
        [0, 1, 2, 3, 4, 5],
    ),
    "from 1": (
        LabelMaps,
        dict(metainfo=dict(classes=NAMES), first_value=1),
        [1, 2, 3, 4, 5, 255],
    ),
    "from 3, several ignored": (
        LabelMaps,
        dict(metainfo=dict(classes=NAMES), first_value=3, ignore=(0, 2, 9, 255)),
        [3, 4, 5, 6, 7, 0, 2, 9, 255],
    ),
    "ADE20K": (ADE20K, {}, range(151)),
}


@pytest.fixture
def folders(tmp_path):
    def write(values):
        places = {}
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir()
            places[kind] = tmp_path / kind / "one.png"
        labels = np.random.default_rng(1).choice(np.array(values, np.uint8), (31, 43))
        labels.flat[: len(values)] = values
        Image.fromarray(labels).save(places["labels"])
        Image.fromarray(np.zeros((31, 43, 3), np.uint8)).save(places["images"])
        return dict(img_path=str(tmp_path / "images"), seg_map_path=str(tmp_path / "labels"))

    return write


@pytest.mark.parametrize("name", TABLES)
def test_both_read_the_same_label_map(folders, name):
    kind, arguments, values = TABLES[name]
    init_default_scope("mmseg")
    prefix = folders(list(values))
    plain, ours = (
        kind(**arguments, data_prefix=prefix, pipeline=pipeline)[0]
        for pipeline in ([IMAGE, LABELS], [OUR_IMAGE, OUR_LABELS])
    )
    assert np.array_equal(plain["gt_seg_map"], ours["gt_seg_map"])
    assert len(np.unique(ours["gt_seg_map"])) > 5
    assert plain["gt_seg_map"].dtype == ours["gt_seg_map"].dtype
    assert plain["seg_fields"] == ours["seg_fields"]


def test_a_value_the_table_lacks_becomes_no_class_in_plain_mmseg(folders):
    """Our reader names the file; mmseg's cannot, but a loss finds no class of that number."""
    init_default_scope("mmseg")
    dataset = LabelMaps(
        metainfo=dict(classes=NAMES),
        first_value=1,
        data_prefix=folders([0, 1, 5, 255]),
        pipeline=[IMAGE, LABELS],
    )
    assert np.unique(dataset[0]["gt_seg_map"]).tolist() == [0, 4, 254, 255]


def test_sixteen_bits_are_refused_where_mmseg_reads_eight(folders):
    init_default_scope("mmseg")
    arguments = dict(metainfo=dict(classes=NAMES), first_value=300, data_prefix=folders([0]))
    with pytest.raises(InputError, match=r"value 304 needs more than 8 bits.*LoadLabelMap"):
        LabelMaps(**arguments, pipeline=[IMAGE, LABELS])
    LabelMaps(**arguments, pipeline=[IMAGE, OUR_LABELS])


def test_both_read_the_same_beside_boxes(small_shapes):
    """The label maps of the shapes take the place of COCO's things and stuff."""
    init_default_scope("mmdet")
    steps = Config.fromfile(str(ROOT / "configs/_base_/coco_htc.py")).train_pipeline[:2]
    dataset = dict(
        type="swin_dense.CocoInstances",
        data_root=str(small_shapes.root),
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/train", seg="label_maps/train"),
        pipeline=steps,
    )
    plain, ours = (DATASETS.build(d)[0] for d in (dataset, swapped(dataset)))
    assert plain.keys() - ours.keys() == {"ignore_index"}
    for key in ("img", "gt_seg_map", "gt_bboxes_labels"):
        assert np.array_equal(plain[key], ours[key])
    assert len(np.unique(plain["gt_seg_map"])) > 2


# Names of pipelines.

GOOD = """
default_scope = "mmdet"
model = dict(type="FPN", in_channels=[8], out_channels=4, num_outs=1)
train_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackDetInputs")]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
"""


def test_a_pipeline_that_no_loader_takes_is_refused(tmp_path):
    (tmp_path / "base.py").write_text(GOOD)
    derived = tmp_path / "derived.py"
    derived.write_text('_base_ = "base.py"\ntrain_pipeline = [dict(type="PackDetInputs")]\n')
    with pytest.raises(InputError, match=r"states train_pipeline, .* Add train_dataloader = dict"):
        configs.load(derived)
    derived.write_text(
        '_base_ = "base.py"\n'
        'train_dataloader = dict(dataset=dict(pipeline=[dict(type="PackDetInputs")]))\n'
    )
    assert len(configs.load(derived).train_dataloader.dataset.pipeline) == 1


def test_names_follow_the_loaders(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(GOOD)
    config = configs.load(path, {"train_dataloader.dataset.pipeline.0.to_float32": True})
    readers.name_pipelines(config)
    assert config.train_pipeline[0] == dict(type="LoadImageFromFile", to_float32=True)
    assert "test_pipeline" not in config
