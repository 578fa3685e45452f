"""Which dtype bfloat16 is multiplied in: said, measured once, kept."""

import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense.ops import products, verdicts


@pytest.fixture(autouse=True)
def _anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(products.SWITCH, raising=False)
    products.in_float32.cache_clear()
    yield
    products.in_float32.cache_clear()


@pytest.mark.parametrize(("ratio", "wide"), [(0.5, False), (1.1, False), (1.7, True)])
def test_what_was_measured_decides_and_is_kept(ratio, wide, monkeypatch, tmp_path):
    monkeypatch.setattr(products, "measure", lambda: ratio)
    assert products.in_float32() is wide
    (file,) = (tmp_path / "swin_dense").iterdir()
    assert json.loads(file.read_text()) == {"float32 against bfloat16": ratio}
    products.in_float32.cache_clear()
    monkeypatch.setattr(products, "measure", None)
    assert products.in_float32() is wide  # the next process reads it
    products.in_float32.cache_clear()
    monkeypatch.setattr(products, "measure", lambda: 1 / ratio)
    monkeypatch.setattr(verdicts, "processor", lambda: "another one")
    assert products.in_float32() is (1 / ratio > 1.2)


def test_it_can_be_said(monkeypatch):
    monkeypatch.setattr(products, "measure", None)
    for said, wide in (("float32", True), ("bfloat16", False)):
        monkeypatch.setenv(products.SWITCH, said)
        products.in_float32.cache_clear()
        assert products.in_float32() is wide
    monkeypatch.setenv(products.SWITCH, "fp32")
    products.in_float32.cache_clear()
    with pytest.raises(ValueError, match="is 'float32' or 'bfloat16', not 'fp32'"):
        products.in_float32()


def test_real_products_are_measured_while_fake_ones_are_followed(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "mm", lambda a, b: seen.append(type(a)))
    with FakeTensorMode():
        products.in_float32()
    assert set(seen) == {torch.Tensor}


def test_a_ratio_is_measured():
    assert 0 < products.measure() < 1e6
