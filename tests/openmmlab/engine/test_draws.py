"""What is drawn for a run: the same images, however many processes load them, entered anywhere."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader, Dataset

from swin_dense.openmmlab.engine import draws


class Noisy(Dataset):
    """Each item draws from all three generators."""

    def __init__(self):
        self.loaded = []

    def __len__(self):
        return 7

    def get_data_info(self, place):
        return {"width": 2 + place % 3, "height": 3}

    def __getitem__(self, place):
        assert type(place) is int
        self.loaded.append(place)
        return torch.tensor(
            [place, random.random(), np.random.rand(), float(torch.rand(1))], dtype=torch.float64
        )


def loader(sampler, kind=None, workers=0):
    data = Noisy()
    order = sampler(data, shuffle=True, seed=3)
    given = {"batch_sampler": kind(order, 2)} if kind else {"sampler": order, "batch_size": 2}
    made = DataLoader(data, num_workers=workers, **given)
    draws.enter(made, seed=4)
    return made, data


def first(count, seen, *args, **kwargs):
    made, data = loader(*args, **kwargs)
    return list(itertools.islice(draws.endless(made, seen), count)), data


@pytest.mark.parametrize("kind", [None, AspectRatioBatchSampler])
@pytest.mark.parametrize("sampler", [InfiniteSampler, DefaultSampler])
def test_batches_after_those_seen_are_the_same(sampler, kind):
    whole, _ = first(11, 0, sampler, kind)
    assert len({float(row[1]) for batch in whole for row in batch}) > 14
    for seen in (1, 4, 9):
        rest, data = first(11 - seen, seen, sampler, kind)
        assert all(map(torch.equal, rest, whole[seen:]))
        assert len(data.loaded) <= 2 * (11 - seen)  # nothing is loaded to be thrown away


def test_processes_that_load_change_nothing():
    alone, _ = first(6, 1, InfiniteSampler)
    several, _ = first(6, 1, InfiniteSampler, workers=2)
    assert all(map(torch.equal, alone, several))


def test_an_image_drawn_again_is_another():
    rows = torch.cat(first(7, 0, InfiniteSampler)[0])  # two passes
    for place in range(7):
        one, other = rows[rows[:, 0] == place]
        assert (one[1:] != other[1:]).all()


def test_the_run_s_own_numbers_stay_its_own():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first(3, 0, InfiniteSampler)
    assert torch.equal(torch.rand(2), expected)


def test_a_draw_reaches_other_processes():
    draw = pickle.loads(pickle.dumps(draws.Draw(5, 2, 11)))
    assert (draw, draw.epoch, draw.number) == (5, 2, 11)


def test_a_loader_of_its_own_kind_is_left_alone():
    made = DataLoader(Noisy(), batch_size=None)
    draws.enter(made, seed=4)
    assert type(made.dataset) is Noisy
    assert [int(item[0]) for item in draws.batches(made, 5)] == [5, 6]
