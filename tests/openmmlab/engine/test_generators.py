"""Random numbers go on from where they were; those of an image depend on nothing before it."""

import io
import random

import numpy as np
import torch

from swin_dense.openmmlab.engine import generators


def drawn():
    return [
        *(random.random() for _ in range(3)),
        random.gauss(0, 1),
        *np.random.rand(3),
        np.random.randn(),
        *torch.rand(3).tolist(),
    ]


def test_they_go_on_from_where_they_were():
    drawn()  # one number of a pair of normal ones is kept for the next time
    kept = io.BytesIO()
    torch.save(generators.state(), kept)
    expected = drawn()
    drawn()
    kept.seek(0)
    generators.restore(torch.load(kept, weights_only=True))
    assert drawn() == expected


def test_those_of_an_image_are_its_own():
    generators_before = generators.state()
    expected = drawn()
    generators.restore(generators_before)
    found = []
    for numbers in ((5, 0, 1), (5, 0, 2), (5, 1, 1), (6, 0, 1)):
        with generators.begun_at(*numbers):
            found.append(drawn())
    assert len({row[0] for row in found}) == len({row[-1] for row in found}) == 4
    assert len({row[4] for row in found}) == 4
    drawn_between = drawn()
    assert drawn_between == expected
    with generators.begun_at(5, 0, 2):
        assert drawn() == found[1]
