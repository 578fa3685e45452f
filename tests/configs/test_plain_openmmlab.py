"""Our configs in OpenMMLab's own tools, in processes that know no more of us than they must."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import CONFIGS, ROOT
from mmengine.config import Config
from mmengine.registry import Registry

import swin_dense.openmmlab
import swin_dense.registry
from swin_dense.datasets import images
from swin_dense.openmmlab.engine import predictor

LEAVES = sorted((ROOT / "configs").glob("*.py"))
WEIGHTS = {task: ROOT / f"demo/weights/{path.stem}.safetensors" for task, path in CONFIGS.items()}


def fresh(program, *arguments, folder=ROOT):
    """Run a program in a process of its own; return what it prints behind "FOUND"."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FOUND")[2])


# Drawing.

DRAW = """
import json, sys
import swin_dense
assert "torch" not in sys.modules
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmseg.apis import MMSegInferencer, inference_model, init_model
assert "swin_dense.openmmlab" not in sys.modules
import cv2
detector, its_weights, segmentor, other_weights, image, out = sys.argv[1:]

find = DetInferencer(detector, its_weights, device="cpu", show_progress=False)
drawn = find(image, out_dir=out + "/objects", no_save_pred=False)["predictions"][0]
model = init_detector(detector, its_weights, device="cpu")
from mmcv.ops import multi_scale_deform_attn
assert multi_scale_deform_attn.multi_scale_deformable_attn_pytorch.__module__.startswith("swin_")
objects = [inference_detector(model, given).pred_instances for given in (image, cv2.imread(image))]
label = MMSegInferencer(segmentor, other_weights, device="cpu", show_progress=False)
maps = [label(image, out_dir=out + "/maps")["predictions"]]
for given in (image, cv2.imread(image)):
    model = init_model(segmentor, other_weights, device="cpu")
    maps.append(inference_model(model, given).pred_sem_seg.data[0].numpy())
print("FOUND" + json.dumps(dict(
    drawn=drawn,
    objects=[[o.bboxes.tolist(), o.scores.tolist(), o.labels.tolist()] for o in objects],
    maps=[m.tolist() for m in maps],
    classes=[list(find.model.dataset_meta["classes"]), list(label.model.dataset_meta["classes"])],
)))
"""


def test_inferencers_find_what_our_demo_finds(small_shapes, tmp_path):
    image = sorted(small_shapes.image_dir("val").iterdir())[1]
    places = [part for task in CONFIGS for part in (CONFIGS[task], WEIGHTS[task])]
    found = fresh(DRAW, *places, image, tmp_path)
    rgb = images.read_rgb(image)
    ours = {task: predictor.load(CONFIGS[task], WEIGHTS[task], device="cpu") for task in CONFIGS}

    expected = ours["detection"].predict(rgb, score=0.0)
    assert len(expected.labels) > 3
    for boxes, scores, labels in found["objects"]:
        order = np.argsort(-np.array(scores), kind="stable")
        np.testing.assert_allclose(np.array(boxes)[order], expected.boxes, rtol=1e-4)
        np.testing.assert_allclose(np.array(scores)[order], expected.scores, rtol=1e-4)
        assert np.array_equal(np.array(labels)[order], expected.labels)
    assert sorted(found["drawn"]["labels"]) == sorted(expected.labels.tolist())

    expected = ours["segmentation"].predict(rgb).labels
    assert len(np.unique(expected)) > 2
    assert len(found["maps"]) == 3
    for labels in found["maps"]:
        assert np.array_equal(labels, expected)

    assert found["classes"] == [list(model.classes) for model in ours.values()]
    for folder in ("objects/vis", "maps/vis"):
        (picture,) = (tmp_path / folder).iterdir()
        assert images.read_rgb(picture).shape == rgb.shape
        assert not np.array_equal(images.read_rgb(picture), rgb)


# Training.

TRAIN = """
import json, sys
from pathlib import Path
from mmengine.config import Config
from mmengine.runner import Runner
names, root, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
found = {}
for path, best in names.items():
    config = Config.fromfile(path)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.data_root = root
    if "ann_file" in config.val_evaluator:
        config.val_evaluator.ann_file = f"{root}/annotations/instances_val.json"
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=1, val_interval=1)
    config.train_dataloader.sampler = dict(type="InfiniteSampler")
    config.default_hooks.checkpoint.update(by_epoch=False, interval=1, save_best=best)
    config.log_processor.by_epoch = False
    config.work_dir = f"{out}/{Path(path).stem}"
    runner = Runner.from_cfg(config)
    runner.train()
    steps = [type(s).__module__ for s in runner.train_dataloader.dataset.pipeline.transforms]
    files = sorted(p.name for p in Path(config.work_dir).glob("*.pth"))
    found[best] = [type(runner).__name__, steps[0], files]
from mmdet.apis import DetInferencer  # with the config that the checkpoint holds
find = DetInferencer(weights=f"{out}/mask_rcnn_swin_nano/iter_1.pth", device="cpu")
print("FOUND" + json.dumps([found, list(find.model.dataset_meta["classes"])]))
"""


def test_mmengine_s_runner_trains_and_validates(small_shapes, tmp_path):
    names = {str(CONFIGS["detection"]): "coco/bbox_mAP", str(CONFIGS["segmentation"]): "mIoU"}
    found, classes = fresh(TRAIN, json.dumps(names), small_shapes.root, tmp_path)
    for best, (runner, first_step, files) in found.items():
        assert runner == "Runner"
        assert first_step == "mmcv.transforms.loading"
        assert files == [f"best_{best.replace('/', '_')}_iter_1.pth", "iter_1.pth"]
    assert len(classes) == 6


# Names and models.

BUILD = """
import json, sys, traceback
from mmengine import registry
names, paths = json.loads(sys.argv[1]), json.loads(sys.argv[2])
roots = {r.name: r for r in vars(registry).values() if isinstance(r, registry.Registry)}
lost = [f"{root}: {name}" for root, name in names if roots[root].get(name) is None]
import torch
from mmengine.config import Config
broken = {}
for path in paths:
    try:
        config = Config.fromfile(path)
        registry.init_default_scope(config.default_scope)
        with torch.device("meta"):
            registry.MODELS.build(config.model)
    except Exception as error:
        broken[path] = repr(error)
print("FOUND" + json.dumps([lost, broken]))
"""


def registered():
    """(name of the root registry, name in a config) of everything we register."""
    own = [r for r in vars(swin_dense.registry).values() if isinstance(r, Registry)]
    ours = [r for r in own if r.scope == "swin_dense"]
    return [(r.parent.name, f"swin_dense.{name}") for r in ours for name in r.module_dict]


def test_mmengine_alone_finds_every_name_and_builds_every_config():
    names = registered()
    assert len(names) > 25
    assert ("model", "swin_dense.BiFPN") in names
    # Those of timm's models need a torchvision that imports by itself, see tests/peers.py.
    paths = [str(path) for path in LEAVES if "swin_dense.Timm" not in path.read_text()]
    lost, broken = fresh(BUILD, json.dumps(names), json.dumps(paths))
    assert not lost
    assert not broken


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_config_says_what_openmmlab_s_tools_look_for(path):
    """Not built; what they read of a config is in it, and names no class of ours too many."""
    config = Config.fromfile(str(path))
    assert config.custom_imports == dict(
        imports=["swin_dense.openmmlab"], allow_failed_imports=False
    )
    assert config.train_pipeline == config.train_dataloader.dataset.pipeline
    assert config.test_pipeline == config.test_dataloader.dataset.pipeline
    assert config.train_pipeline[0] == config.test_pipeline[0] == dict(type="LoadImageFromFile")
    segments = config.default_scope == "mmseg"
    kind = "SegLocalVisualizer" if segments else "DetLocalVisualizer"
    assert config.visualizer.type == kind
    assert dict(type="LoadAnnotations") in config.test_pipeline or not segments
