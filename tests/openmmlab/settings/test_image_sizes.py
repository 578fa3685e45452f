"""Sizes of the configs by hand, and the largest that the real steps make of a landscape image."""

import numpy as np
import pytest
from conftest import CONFIGS, ROOT
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from peers import peer_of

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import places, sections
from swin_dense.openmmlab.settings.image_sizes import paper_shape, scale_images, training_shape
from swin_dense.registry import DATASETS

IMAGE = (60, 100)  # height, width
RESIZE = dict(type="Resize", scale=(100, 60), keep_ratio=True)


def loaded(name):
    return configs.load(ROOT / f"configs/{name}.py")


def training(pipeline, scope="mmdet", **preprocessor):
    """A config that trains on images of this pipeline."""
    dataset = dict(type="CocoDataset", pipeline=pipeline)
    return Config(
        dict(
            default_scope=scope,
            model=dict(data_preprocessor=preprocessor),
            train_dataloader=dict(dataset=dataset),
        )
    )


@pytest.mark.parametrize(
    ("name", "paper", "largest"),
    [
        ("mask_rcnn_swin_t", (800, 1280), (800, 1344)),  # 1333 x 800, then a multiple of 32
        ("deformable_detr_swin_t", (800, 1280), (800, 1333)),  # 4200 x 600 is cut to 600 x 600
        ("atss_dyhead_swin_l", (800, 1280), (1280, 2048)),  # 2000 x 1200, multiples of 128
        ("htc_swin_b", (800, 1280), (1408, 1600)),  # 1600 x 1400
        ("htc_swin_v2_l", (800, 1280), (1536, 1536)),
        ("mask2former_swin_t", (800, 1280), (1024, 1024)),  # 0.1 to 2 times 1024, cut to 1024
        ("mask_rcnn_swin_nano", (800, 1280), (160, 224)),  # 208 x 160
        ("upernet_swin_t", (512, 2048), (512, 512)),  # cut
        ("mask2former_swin_b_ade20k", (640, 2560), (640, 640)),
    ],
)
def test_sizes_of_our_configs(name, paper, largest):
    config = loaded(name)
    assert paper_shape(config) == paper
    assert training_shape(config) == largest


STEPS = {
    "one scale, the shorter side first": [dict(RESIZE, scale=(30, 50))],
    "times a ratio": [
        dict(type="RandomResize", scale=(80, 48), ratio_range=(1.25, 1.25), keep_ratio=True)
    ],
    "a range of scales": [
        dict(type="RandomResize", scale=[(70, 42), (75, 45)], keep_ratio=True),
    ],
    "one of several": [
        dict(type="RandomChoiceResize", scales=[(50, 30), (90, 54), (70, 42)], keep_ratio=True)
    ],
    "a shorter side, the longer one bounded": [
        dict(
            type="RandomChoiceResize",
            scales=[20, 30, 60],
            resize_type="ResizeShortestEdge",
            max_size=90,
        ),
        dict(type="Pad", size=(90, 60)),
    ],
    "mmdet's crop: width, height": [RESIZE, dict(type="RandomCrop", crop_size=(70, 30))],
    "a crop larger than the image": [RESIZE, dict(type="RandomCrop", crop_size=(300, 40))],
    "a range of crops": [
        RESIZE,
        dict(type="RandomCrop", crop_type="absolute_range", crop_size=(20, 25)),
    ],
    "padded to a size": [RESIZE, dict(type="Pad", size=(110, 50))],
    "padded to a square, then to a divisor": [
        RESIZE,
        dict(type="Pad", pad_to_square=True),
        dict(type="Pad", size_divisor=16),
    ],
    "the largest of branches": [
        RESIZE,
        dict(
            type="RandomChoice",
            transforms=[
                [dict(type="RandomCrop", crop_size=(30, 20))],
                [dict(type="RandomCrop", crop_size=(35, 25)), dict(type="Pad", size=(41, 33))],
            ],
        ),
    ],
    "branches in branches, one step each": [
        dict(
            type="RandomChoice",
            transforms=[
                dict(RESIZE, scale=(50, 30)),
                dict(type="RandomChoice", transforms=[dict(RESIZE, scale=(55, 33))]),
            ],
        ),
    ],
    "with or without": [
        dict(RESIZE, scale=(50, 30)),
        dict(type="RandomApply", transforms=[dict(type="Pad", size=(60, 31))], prob=0.5),
    ],
    "in turn": [
        RESIZE,
        dict(type="RandomOrder", transforms=[dict(type="RandomCrop", crop_size=(64, 32))]),
    ],
}


@pytest.mark.parametrize("pipeline", STEPS.values(), ids=STEPS)
def test_what_the_real_steps_make_at_most(pipeline):
    assert training_shape(training(pipeline)) == largest_made(pipeline, "mmdet")


def test_the_upper_end_of_a_ratio():
    resize = dict(type="RandomResize", scale=(80, 48), ratio_range=(0.5, 1.3), keep_ratio=True)
    assert training_shape(training([resize])) == (62, 104)


def test_crops_of_mmseg_are_height_and_width():
    pipeline = [RESIZE, dict(type="RandomCrop", crop_size=(30, 70))]
    assert largest_made(pipeline, "mmseg") == (30, 70)
    assert training_shape(training(pipeline, "mmseg")) == (30, 70)
    assert training_shape(training([dict(type="RandomCrop", crop_size=40)], "mmseg")) == (40, 40)


def largest_made(pipeline, scope):
    """Of each side, in many draws."""
    np.random.seed(0)
    with TRANSFORMS.switch_scope_and_registry(scope):
        steps = Compose([ConfigDict(step) for step in pipeline])
    made = []
    for _ in range(150):
        image = np.zeros((*IMAGE, 3), np.uint8)
        made.append(steps(dict(img=image, img_shape=IMAGE))["img"].shape[:2])
    return max(h for h, _ in made), max(w for _, w in made)


def test_the_preprocessor_pads():
    for divisor in ("pad_size_divisor", "size_divisor"):
        assert training_shape(training([RESIZE], **{divisor: 32})) == (64, 128)
    assert training_shape(training([RESIZE], "mmseg", size=(80, 90))) == (80, 100)


def test_pipelines_of_wrapped_and_joined_sets():
    """An inner pipeline comes before that of the set around it."""
    inner = dict(type="CocoDataset", pipeline=[RESIZE])
    other = dict(type="CocoDataset", pipeline=[dict(RESIZE, scale=(120, 50))])
    joined = dict(type="ConcatDataset", datasets=[inner, other])
    config = training([dict(type="Pad", size_divisor=16)])
    config.train_dataloader.dataset = dict(type="RepeatDataset", times=2, dataset=joined)
    assert training_shape(config) == (60, 120)
    config.train_dataloader.dataset.update(pipeline=[dict(type="RandomCrop", crop_size=(70, 50))])
    assert training_shape(config) == (50, 70)


def test_steps_may_name_their_library():
    assert training_shape(training([dict(RESIZE, type="mmdet.Resize")])) == (60, 100)


def test_a_square_that_images_are_padded_to_follows_their_scale():
    for divisor, then in ((1024, 224), (32, 32), (None, None)):
        preprocessor = {} if divisor is None else {"pad_size_divisor": divisor}
        config = Config(dict(model=dict(data_preprocessor=preprocessor)))
        scale_images(config, (200, 100))
        assert config.model.data_preprocessor.get("pad_size_divisor") == then


def test_scaled_images_train_smaller():
    """As --image-scale of tools/train.py, in every branch."""
    config = loaded("deformable_detr_swin_t")
    scale_images(config, (320, 200))
    assert training_shape(config) == (200, 320)


@pytest.mark.parametrize("pipeline", [[], [dict(type="RandomFlip", prob=0.5)]])
def test_nothing_states_a_size(pipeline):
    config = training(pipeline, pad_size_divisor=32)
    assert training_shape(config) is None
    config.pop("train_dataloader")
    assert training_shape(config) is None


def test_label_maps_of_no_scale():
    config = loaded("upernet_swin_t")
    config.pop("test_dataloader")
    with pytest.raises(InputError, match=r"resizes images to no scale .* Give one as `shape`"):
        paper_shape(config)


# Other sizes.


def sizes(config):
    """Every scale and scales of the loaders, wherever they stand."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            found.extend(node[key] for key in ("scale", "scales") if key in node)
            node = list(node.values())
        if isinstance(node, list | tuple):
            for item in node:
                walk(item)

    for name in sections.LOADERS.values():
        walk(config[name])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_scale_images_reaches_every_step(path):
    peer_of(path)
    config = configs.load(path)
    anchors = config.model.get("rpn_head", {}).get("anchor_generator", {}).get("scales")
    before = sizes(config)
    scale_images(config, (384, 224))
    after = sizes(config)
    assert len(after) == len(before) >= 3
    assert all(size in ((384, 224), [(384, 224)], [(384, 224)] * 2) for size in after)
    assert config.model.get("rpn_head", {}).get("anchor_generator", {}).get("scales") == anchors


def test_scaled_images_have_that_size(small_shapes):
    config = configs.load(CONFIGS["detection"])
    places.complete_data(config, data_root=str(small_shapes.root))
    scale_images(config, (150, 90))
    init_default_scope(config.default_scope)
    sample = DATASETS.build(config.val_dataloader.dataset)[0]
    assert tuple(sample["inputs"].shape) == (3, 90, 130)  # 72x104 by 90 / 72


def test_a_range_of_sizes_is_scaled_to_one_size(small_shapes):
    """RandomResize takes a list of two sizes, or one size with a range of ratios."""
    config = configs.load(ROOT / "configs/atss_dyhead_swin_l.py")
    places.complete_data(config, data_root=str(small_shapes.root))
    scale_images(config, (150, 90))
    init_default_scope(config.default_scope)
    sample = DATASETS.build(config.train_dataloader.dataset)[0]
    assert tuple(sample["inputs"].shape) == (3, 90, 130)


def test_scaled_images_leave_what_moves_objects_alone():
    config = configs.load(ROOT / "configs/htc_swin_b.py")
    config.train_dataloader.dataset.pipeline[3].zoom = (0.9, 1.1)
    scale_images(config, (150, 90))
    assert config.train_dataloader.dataset.pipeline[3].zoom == (0.9, 1.1)


@pytest.mark.parametrize("task", ["", "_panoptic", "_ade20k"])
def test_no_crop_is_larger_than_a_scaled_image(task, small_shapes):
    config = configs.load(ROOT / f"configs/mask2former_swin_t{task}.py")
    places.complete_data(config, data_root=str(small_shapes.root))
    scale_images(config, (150, 90))
    steps = {s["type"]: s for s in config.train_dataloader.dataset.pipeline}
    assert steps["RandomCrop"].crop_size == (150, 150)
    init_default_scope(config.default_scope)
    model = MODELS.build(dict(config.model.data_preprocessor))
    items = [DATASETS.build(config.train_dataloader.dataset)[i] for i in (0, 1)]
    batch = {key: [item[key] for item in items] for key in items[0]}
    side = 150 if task == "_ade20k" else 160  # the latter to a multiple of 32
    assert tuple(model(batch, True)["inputs"].shape) == (2, 3, side, side)
