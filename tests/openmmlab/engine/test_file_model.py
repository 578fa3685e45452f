"""Files of every kind of model find what the model finds, of sizes and batches never traced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmdet.structures import DetDataSample
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmseg.structures import SegDataSample
from peers import peer

from swin_dense.errors import InputError
from swin_dense.export import formats, sessions
from swin_dense.export.graphs import choice
from swin_dense.export.graphs.traceable import traceable
from swin_dense.openmmlab.engine.file_model import FileModel
from swin_dense.openmmlab.settings import building
from swin_dense.openmmlab.settings import config as configs

NANO = {"model.backbone.arch": "nano", "model.backbone.depths": (1, 2, 1, 1)}
RCNN = {
    "model.test_cfg.rpn.nms_pre": 61,
    "model.test_cfg.rpn.max_per_img": 43,
    "model.test_cfg.rcnn.max_per_img": 9,
    "model.test_cfg.rcnn.score_thr": 0.0,
}
QUERIES = {
    "num_queries": 17,
    "transformer_decoder.num_layers": 2,
    "pixel_decoder.encoder.num_layers": 1,
}
DENSE = {
    "model.test_cfg.nms_pre": 41,
    "model.test_cfg.max_per_img": 13,
    "model.test_cfg.score_thr": 0.0,
}
KINDS = {
    "mask_rcnn_swin_nano": {"model.test_cfg.rcnn.max_per_img": 11},
    "faster_rcnn_swin_t": {**NANO, **RCNN},
    "cascade_mask_rcnn_swin_t": {**NANO, **RCNN},
    "retinanet_swin_t": {**NANO, **DENSE},
    "atss_swin_t": {**NANO, **DENSE},
    "dino_swin_t": {
        **NANO,
        "model.num_queries": 23,
        "model.encoder.num_layers": 1,
        "model.decoder.num_layers": 2,
        "model.test_cfg.max_per_img": 12,
    },
    "mask2former_swin_t": {**NANO, **{f"model.panoptic_head.{k}": v for k, v in QUERIES.items()}},
    "mask2former_swin_t_panoptic": {
        **NANO,
        **{f"model.panoptic_head.{k}": v for k, v in QUERIES.items()},
        "model.test_cfg.object_mask_thr": 0.0,
        "model.test_cfg.iou_thr": 0.1,
    },
    "mask2former_swin_t_ade20k": {
        **NANO,
        **{f"model.decode_head.{k}": v for k, v in QUERIES.items()},
    },
    "upernet_swin_nano": {},
}


def built(name):
    config = configs.load(str(ROOT / f"configs/{name}.py"), KINDS[name])
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        torch.manual_seed(0)
        model = revert_sync_batchnorm(building.build(registry, config.model, "model")).eval()
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part, parameter in model.named_parameters():  # apart, where queries start alike
            if part == "level_embed":  # DINO's is what the memory held before
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
            noise = torch.randn(parameter.shape, generator=random)
            spread = parameter.std() if parameter.numel() > 1 else 1.0
            rate = 5.0 if "cls_embed" in part or "mask_embed" in part else 0.2
            parameter.add_(noise * (0.1 if parameter.dim() == 1 else rate * spread))
        for buffer in model.buffers():
            if buffer.is_floating_point() and buffer.dim() == 1:
                buffer.add_(0.1 * torch.rand(buffer.shape, generator=random))
    return config, model


def batch(config, count, height, width, size):
    """Images as a loader gives them, with the size that they had before."""
    random = torch.Generator().manual_seed(height)
    kind = SegDataSample if config.default_scope == "mmseg" else DetDataSample
    factor = (width / size[1], height / size[0])
    meta = {"ori_shape": size, "img_shape": (height, width), "scale_factor": factor}
    shape = (3, height, width)
    return {
        "inputs": [
            torch.randint(256, shape, generator=random, dtype=torch.uint8) for _ in range(count)
        ],
        "data_samples": [kind(metainfo=meta) for _ in range(count)],
    }


@pytest.mark.parametrize("name", KINDS)
def test_a_graph_finds_what_its_model_finds(name):
    """Before it is written; both ways to read maps are asked in tests/export."""
    config, model = built(name)
    graph = choice.graph(model)

    def run(images, size):
        with torch.inference_mode(), traceable(graph, "grid"):
            return [one.numpy() for one in graph(*map(torch.from_numpy, (images, size)))]

    file = FileModel(sessions.Session(Path("none"), {"outputs": graph.OUTPUTS}, run), config)
    same(config, model, file)


OFTEN = ("dino_swin_t", "mask2former_swin_t")  # what tests/cli/test_export.py does not write
FILES = [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.parametrize("name", FILES)
def test_a_file_finds_what_its_model_finds(name, tmp_path):
    for package in ("onnx", "onnxruntime"):
        peer(package)
    config, model = built(name)
    path = tmp_path / "model.onnx"
    formats.write(choice.graph(model), path, {}, sampling="gather")
    same(config, model, FileModel(sessions.open_file(path), config))


def same(config, model, file):
    for count, height, width, size in ((1, 97, 130, (120, 161)), (3, 143, 100, (143, 100))):
        with torch.inference_mode():
            want = model.test_step(batch(config, count, height, width, size))
        found = file.test_step(batch(config, count, height, width, size))
        for one, other in zip(want, found, strict=True):
            compare(one, other)


def compare(want, found):
    if "pred_sem_seg" in want:
        labels = want.pred_sem_seg.data
        assert len(labels.unique()) > 1
        assert found.pred_sem_seg.data.shape == labels.shape
        ours, theirs = (
            want.seg_logits.data.gather(0, sample.pred_sem_seg.data) for sample in (want, found)
        )
        assert (ours - theirs > 1e-6).float().mean() < 1e-3  # of equal classes, the choice is free
    elif "pred_panoptic_seg" in want:
        one, other = want.pred_panoptic_seg, found.pred_panoptic_seg
        assert len(one.sem_seg.unique()) > 1
        assert (one.sem_seg % 1000 != other.sem_seg % 1000).float().mean() < 1e-3
        close = {"atol": 1e-4, "rtol": 0}
        for values in zip(sorted(one.scores.values()), sorted(other.scores.values()), strict=True):
            np.testing.assert_allclose(*values, **close)
    else:
        objects(want.pred_instances, found.pred_instances)


def objects(want, found):
    assert len(want) > 3
    assert len(want) == len(found)
    for one in (want, found):
        one.order = torch.argsort(one.scores, descending=True, stable=True)
    torch.testing.assert_close(
        found.scores[found.order], want.scores[want.order], atol=1e-4, rtol=0
    )
    for i in range(len(want)):  # of equal scores, the order is free
        near = (found.bboxes - want.bboxes[i]).abs().amax(1) + (found.labels != want.labels[i]) * 99
        near = near + (found.scores - want.scores[i]).abs() * 1000
        j = int(near.argmin())
        assert near[j] < 0.2
        if "masks" in want:
            assert (torch.as_tensor(want.masks[i]) != found.masks[j]).float().mean() < 2e-3


def test_a_size_below_the_least_is_refused(tmp_path):
    config, model = built("upernet_swin_nano")
    path = tmp_path / "model.torchscript"
    formats.write(choice.graph(model), path, {})
    file = FileModel(sessions.open_file(path), config)
    with pytest.raises(InputError, match="32x200 pixels, as the model sees it, is smaller"):
        file.test_step(batch(config, 1, 200, 32, (200, 32)))
