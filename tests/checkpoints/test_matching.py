"""A checkpoint against a model: shares counted by hand, and the refusal."""

import pytest
import torch

from swin_dense.checkpoints import matching
from swin_dense.errors import InputError

MODEL = {"a": torch.zeros(2, 3), "b": torch.zeros(5), "c": torch.zeros(4, 2)}


def test_each_kind_of_difference_is_counted():
    state = {"module.a": torch.ones(2, 3), "c": torch.ones(4, 3), "d": torch.ones(1)}
    match = matching.compare(MODEL, state)
    assert match.fitting == {"a": (2, 3)}
    assert match.missing == {"b": (5,)}
    assert match.reshaped == {"c": ((4, 2), (4, 3))}
    assert match.unused == {"d": (1,)}
    assert match.share == 6 / (6 + 5 + 8)


def test_the_description_names_what_differs():
    text = matching.compare(MODEL, {"a": torch.ones(2, 3), "c": torch.ones(4, 3)}).describe()
    assert "31.6%" in text
    assert "c (4, 2) in the model, (4, 3) in the file" in text
    assert "not in the file (1): b" in text


def test_too_little_is_refused_and_enough_is_not():
    match = matching.compare(MODEL, {"a": torch.ones(2, 3)})
    matching.require(match, "w.pth", 0.3, "")
    with pytest.raises(InputError, match=r"w.pth does not fit .* 50% .*(\n.*)*Try another"):
        matching.require(match, "w.pth", 0.5, "Try another.")


def test_a_model_without_weights_needs_none():
    assert matching.compare({}, {"a": torch.ones(1)}).share == 1.0
