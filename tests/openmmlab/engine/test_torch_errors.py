"""Errors that torch raises, and what a user reads instead."""

import pytest
import torch
from torch import nn

from swin_dense.errors import InputError
from swin_dense.openmmlab.engine.torch_errors import explained


def test_too_few_places_for_the_queries():
    says = r"top-k asks for more candidates than the feature map has\. .*model\.num_queries places"
    with pytest.raises(InputError, match=says), explained():
        torch.zeros(2, 7).topk(8, dim=1)


def test_one_value_for_a_batch_norm():
    with pytest.raises(InputError, match=r"at least two images .*batch_size=2"), explained():
        nn.BatchNorm2d(5)(torch.zeros(1, 5, 1, 1))


def test_another_process_ended():
    with pytest.raises(InputError, match=r"another process of this run has ended"), explained():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]")


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError, KeyError])
def test_other_errors_pass_unchanged(kind):
    with pytest.raises(kind, match="ours"), explained():
        raise kind("ours")
