"""Every registered backbone on a CUDA device, against itself on the CPU."""

import pytest
import torch
from devices import needs_cuda
from networks import gradients, randomised

from swin_dense import backbones

pytestmark = needs_cuda
DEVICE = "cuda"
SIZE = (61, 75)


def kinds():
    from swin_dense.backbones.backbone import Backbone

    found, left = [], [Backbone]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if "nano" in getattr(kind, "archs", {}):
            found.append(kind)
    return sorted(found, key=lambda kind: kind.__name__)


every_kind = pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch):
    """Convolutions use tf32 there by default, which keeps ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def pair(kind):
    torch.manual_seed(0)
    model = randomised(kind("nano", drop_path_rate=0.0)).eval()
    image = torch.randn(2, 3, *SIZE)
    return model, image


def assert_near(ours, right, share):
    for one, other in zip(ours, right, strict=True):
        assert one.shape == other.shape
        assert (one.cpu().double() - other.double()).abs().max() <= share * other.abs().max()


def test_there_are_backbones():
    assert len(kinds()) >= 3
    assert backbones


@every_kind
def test_maps_and_gradients_are_those_of_the_cpu(kind):
    model, image = pair(kind)
    maps, grads = model(image), gradients(model, image)
    model.zero_grad()
    model.to(DEVICE)
    assert_near(model(image.to(DEVICE)), maps, 1e-4)
    found = gradients(model, image.to(DEVICE))
    assert found.keys() == grads.keys()
    assert_near(found.values(), grads.values(), 1e-3)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_close(kind, dtype):
    """At most a half farther away than on the CPU, where that is more than a twentieth."""
    model, image = pair(kind)
    want = model(image)

    def distances(device):
        with torch.autocast(device, dtype):
            maps = model.to(device)(image.to(device))
        both = zip(maps, want, strict=True)
        return [float((got.cpu() - right).abs().mean() / right.abs().mean()) for got, right in both]

    for there, here in zip(distances(DEVICE), distances("cpu"), strict=True):
        assert there < max(0.05, 1.5 * here)


@every_kind
def test_compiled_is_eager(kind):
    model, image = pair(kind)
    model, image = model.to(DEVICE), image.to(DEVICE)
    want = [m.detach().cpu() for m in model(image)]
    assert_near(torch.compile(model, fullgraph=True)(image), want, 1e-3)
