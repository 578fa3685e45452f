"""Files of detectron2 and Mask2Former: the backbone comes along, the heads do not."""

import pytest
import torch
from swin_states import V1, ours

from swin_dense.checkpoints.layouts import convert

HEADS = {  # as mask2former/maskformer_model.py and detectron2's GeneralizedRCNN call their parts
    ("backbone.", "detectron2 Swin V1, Mask2Former"): (
        "sem_seg_head.pixel_decoder.input_proj.0.0.weight",
        "sem_seg_head.predictor.query_feat.weight",
        "criterion.empty_weight",
    ),
    ("backbone.bottom_up.", "detectron2 Swin V1 with a feature pyramid"): (
        "backbone.fpn_lateral2.weight",
        "backbone.fpn_output5.bias",
        "proposal_generator.rpn_head.conv.weight",
        "roi_heads.box_predictor.cls_score.weight",
        "pixel_mean",
    ),
}


@pytest.mark.parametrize(("place", "heads"), HEADS.items(), ids=["mask2former", "pyramid"])
def test_the_backbone_is_taken_out(place, heads):
    prefix, layout = place
    model = ours(V1)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    buffer = prefix + "layers.0.blocks.0.attn.relative_position_index"
    found = convert(state | {name: torch.ones(3) for name in (*heads, buffer)})
    assert (found.layout, found.whole) == (layout, False)
    model.load_state_dict(found.state, strict=True)
    assert set(found.dropped) == {*heads, buffer}
    assert found.dropped[heads[0]].startswith("a head of detectron2's")


def test_a_classification_file_for_detectron2_is_the_authors():
    state = {
        n.replace("norm3.", "norm."): t for n, t in ours(V1, out_indices=(3,)).state_dict().items()
    }
    assert convert(state).layout == "official Swin V1 classification"
