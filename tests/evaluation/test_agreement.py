"""Counts and rates of label maps against loops over pixels."""

import numpy as np
import pytest

from swin_dense.evaluation import agreement


def test_counts_and_rates_by_hand():
    rng = np.random.default_rng(0)
    true, found = rng.integers(0, 3, (2, 17, 23))
    true[rng.random(true.shape) < 0.2] = 255
    table = np.zeros((4, 4), np.int64)
    for t, f in zip(true.ravel(), found.ravel(), strict=True):
        if t != 255:
            table[t, f] += 1
    counted = agreement.confusion(true.astype(np.uint8), found, 4)
    np.testing.assert_array_equal(counted, table)
    rates = agreement.rates(counted, beta=2)
    for k in range(3):
        both, truth, seen = table[k, k], table[k].sum(), table[:, k].sum()
        precision, recall = both / seen, both / truth
        assert rates["IoU"][k] == pytest.approx(both / (truth + seen - both), rel=1e-14)
        assert rates["Dice"][k] == pytest.approx(2 * both / (truth + seen), rel=1e-14)
        assert rates["Acc"][k] == rates["Recall"][k] == pytest.approx(recall, rel=1e-14)
        assert rates["Precision"][k] == pytest.approx(precision, rel=1e-14)
        f_score = 5 * precision * recall / (4 * precision + recall)
        assert rates["Fscore"][k] == pytest.approx(f_score, rel=1e-14)
    assert all(np.isnan(rate[3]) for rate in rates.values())


def test_one_pixel_and_none():
    one = np.zeros((1, 1), np.int64)
    assert agreement.confusion(one, one + 1, 2).tolist() == [[0, 1], [0, 0]]
    assert not agreement.confusion(one + 255, one, 2).any()
