"""Runtimes of exported models compute what the model does, and are left out where they lack."""

import pytest
import torch
from peers import peer
from torch import nn

from swin_dense.benchmarks import backbone, peers, runtimes
from swin_dense.benchmarks.ratios import LeftOutError


@pytest.fixture
def model(monkeypatch):
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.GELU())
    monkeypatch.setattr(peers, "load", lambda name, height, width: small)
    return small


@pytest.mark.parametrize("name", runtimes.PRECISIONS)
def test_maps_are_those_of_the_model(name, model):
    peer({"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}[name])
    peer("onnx")
    image = torch.randn(2, 3, 9, 14)
    (found,) = runtimes.load(name, image, "fp32")()
    torch.testing.assert_close(torch.from_numpy(found), model(image).detach())


def test_what_is_not_there_is_left_out(monkeypatch, model):
    def missing(name):
        raise peers.NotInstalledError(f"{name} is not installed")

    monkeypatch.setattr(peers, "reach", missing)
    with pytest.raises(LeftOutError, match="OpenVINO: openvino is not installed, left out"):
        runtimes.load("OpenVINO", torch.zeros(1, 3, 8, 8), "fp32")
    with pytest.raises(LeftOutError, match="processors alone"):
        runtimes.load("OpenVINO", torch.zeros(1, 3, 8, 8, device="meta"), "fp32")


def test_rows_name_a_precision_that_backbones_have():
    rows = {(c.name, c.against) for c in backbone.cases("cpu", (104, 72))}
    for name, precisions in runtimes.PRECISIONS.items():
        assert set(precisions) <= set(backbone.PRECISIONS)
        assert {(f"forward, {p}", name) for p in precisions} <= rows
