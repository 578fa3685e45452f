"""Scores of segments; the map is mmdet's."""

import pytest
import torch
from mmengine.config import ConfigDict

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.models.panoptic_fusion import PanopticFusion
from swin_dense.registry import MODELS


@pytest.fixture
def fusion():
    config = ConfigDict(object_mask_thr=0.4, iou_thr=0.5, filter_low_score=True)
    built = MODELS.build(
        dict(
            type="swin_dense.PanopticFusion",
            num_things_classes=3,
            num_stuff_classes=2,
            test_cfg=config,
        )
    )
    assert type(built) is PanopticFusion
    return built


def test_segments_carry_the_probability_of_their_class(fusion):
    """Two cats, and a sky of two queries; the last query is too unsure to be seen."""
    masks = torch.full((5, 4, 9), -6.0)
    masks[0, :, :3] = masks[1, :, 3:5] = masks[2, :, 5:7] = masks[3, :, 7:] = 6.0
    probabilities = torch.full((5, 6), 0.02)
    for query, (label, share) in enumerate([(0, 0.9), (0, 0.6), (3, 0.7), (3, 0.8), (1, 0.3)]):
        probabilities[query, label] = share
    probabilities[:, 5] += 1 - probabilities.sum(1)
    found = fusion.panoptic_postprocess(probabilities.log(), masks)
    assert found.sem_seg[0, 0].tolist() == [1000, 1000, 1000, 2000, 2000, 3, 3, 3, 3]
    assert found.scores == pytest.approx({1000: 0.9, 2000: 0.6, 3: 0.8}, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_map_is_mmdet_s(fusion, seed):
    torch.manual_seed(seed)
    logits, masks = 4 * torch.randn(11, 6), 6 * torch.randn(11, 5, 7)
    theirs = PanopticFusion.__base__(3, 2, test_cfg=fusion.test_cfg)
    ours = fusion.panoptic_postprocess(logits, masks)
    assert torch.equal(ours.sem_seg, theirs.panoptic_postprocess(logits, masks).sem_seg)
    assert set(ours.scores) == set(ours.sem_seg.unique().tolist()) - {5}
    assert all(0.4 < score <= 1 for score in ours.scores.values())


def test_no_segment_at_all(fusion):
    found = fusion.panoptic_postprocess(torch.zeros(4, 6), torch.zeros(4, 3, 5))
    assert found.scores == {}
    assert (found.sem_seg == 5).all()
