"""The task of every kind of config."""

import pytest
from conftest import ROOT
from mmengine.config import Config

from swin_dense.task import Task

TASKS = {
    "atss_swin_t": Task.DETECTION,
    "sparse_rcnn_swin_t": Task.DETECTION,
    "mask_rcnn_swin_t": Task.INSTANCES,
    "htc_swin_b": Task.INSTANCES,
    "mask2former_swin_t": Task.INSTANCES,
    "mask2former_swin_t_panoptic": Task.PANOPTIC,
    "mask2former_swin_t_ade20k": Task.SEMANTIC,
    "upernet_swin_nano": Task.SEMANTIC,
}


@pytest.mark.parametrize("name", TASKS)
def test_it_is_read_from_the_config(name):
    assert Task.of(Config.fromfile(str(ROOT / f"configs/{name}.py"))) is TASKS[name]


def test_it_is_seen_within_wrappers_and_without_data():
    segments = dict(type="swin_dense.CocoPanoptic")
    wrapped = dict(dataset=dict(type="RepeatDataset", dataset=segments))
    assert Task.of(dict(default_scope="mmdet", train_dataloader=wrapped)) is Task.PANOPTIC
    assert Task.of(dict(default_scope="mmdet", model=dict(type="RetinaNet"))) is Task.DETECTION
    assert Task.of(dict(default_scope="mmseg")) is Task.SEMANTIC
