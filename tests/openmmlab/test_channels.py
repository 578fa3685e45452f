"""Channels left open follow the backbone, announced or shown; what is stated must agree."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab import channels
from swin_dense.registry import MODELS as OURS

NANO = dict(type="swin_dense.Swin", embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
FPN = dict(type="FPN", out_channels=16, num_outs=5)
# mmdet's backbones announce nothing. Their channels and strides by their papers.
FOREIGN = {
    "ResNet": (dict(depth=18), [64, 128, 256, 512], [4, 8, 16, 32]),
    "PyramidVisionTransformer": ({}, [64, 128, 320, 512], [4, 8, 16, 32]),
    "MobileNetV2": (dict(out_indices=(1, 2, 4)), [24, 32, 96], [4, 8, 16]),
}


def filled(scope="mmdet", **model):
    config = Config(dict(default_scope=scope, model=copy.deepcopy(model)))
    channels.fill(config)
    return config.model


def test_a_neck_takes_what_is_announced():
    assert filled(backbone=NANO, neck=FPN).neck.in_channels == [8, 16, 32, 64]
    some = dict(NANO, out_indices=(1, 3))
    assert filled(backbone=some, neck=FPN).neck.in_channels == [16, 64]


@pytest.mark.parametrize("name", FOREIGN)
def test_any_backbone_shows_its_maps(name):
    arguments, expected, strides = FOREIGN[name]
    before = torch.random.get_rng_state()
    model = filled(backbone=dict(type=name, **arguments), neck=FPN, x=dict(featmap_strides=strides))
    assert model.neck.in_channels == expected
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(InputError, match="have strides"):
        filled(backbone=dict(type=name, **arguments), x=dict(featmap_strides=strides[1:]))


def test_weights_named_in_the_config_are_not_read_for_it():
    start = dict(type="Pretrained", checkpoint="nowhere.pth")
    assert filled(backbone=dict(NANO, init_cfg=start), neck=FPN).backbone.init_cfg == start


def test_parts_of_a_neck_feed_each_other():
    other = dict(type="FPN", out_channels=24, num_outs=3)
    neck = filled(backbone=NANO, neck=[FPN, other]).neck
    assert neck[0].in_channels == [8, 16, 32, 64]
    assert neck[1].in_channels == [16] * 5


def test_a_part_of_a_neck_may_announce_maps():
    @OURS.register_module(name="TwiceAsWide", force=True)
    class TwiceAsWide(torch.nn.Module):
        def __init__(self, in_channels):
            super().__init__()
            self.out_channels = [2 * c for c in in_channels]

    try:
        neck = filled(backbone=NANO, neck=[dict(type="swin_dense.TwiceAsWide"), FPN]).neck
        assert neck[1].in_channels == [16, 32, 64, 128]
    finally:
        del OURS.module_dict["TwiceAsWide"]


def test_segmentation_heads_take_all_maps_or_some_or_one():
    model = filled(
        "mmseg",
        backbone=NANO,
        decode_head=dict(type="UPerHead", in_index=[0, 2, -1]),
        auxiliary_head=[dict(type="FCNHead", in_index=2), dict(type="FCNHead", in_index=-1)],
    )
    assert model.decode_head.in_channels == [8, 32, 64]
    assert [head.in_channels for head in model.auxiliary_head] == [32, 64]
    for wrong in (4, "2"):
        with pytest.raises(InputError, match=rf"auxiliary_head.in_index={wrong!r} .* are 4\. Take"):
            filled("mmseg", backbone=NANO, auxiliary_head=dict(type="FCNHead", in_index=wrong))


def test_heads_of_detectors_behind_a_neck_are_the_config_s_affair():
    head = dict(type="ATSSHead", in_channels=16)
    assert filled(backbone=NANO, neck=FPN, bbox_head=head).bbox_head == head


def test_segmentation_heads_behind_a_neck_take_its_maps():
    heads = dict(
        decode_head=dict(type="UPerHead", in_index=[0, 4]),
        auxiliary_head=dict(type="FCNHead", in_index=2),
    )
    model = filled("mmseg", backbone=NANO, neck=FPN, **heads)
    assert model.decode_head.in_channels == [16, 16]
    assert model.auxiliary_head.in_channels == 16


def test_a_neck_that_does_not_say_what_it_passes_on_is_not_guessed():
    @OURS.register_module(name="Silent", force=True)
    class Silent(torch.nn.Module):
        def __init__(self, in_channels):
            super().__init__()

    try:
        neck, head = dict(type="swin_dense.Silent"), dict(type="FCNHead", in_channels=99)
        model = filled("mmseg", backbone=NANO, neck=neck, decode_head=head)
        assert model.neck.in_channels == [8, 16, 32, 64]
        assert model.decode_head.in_channels == 99
    finally:
        del OURS.module_dict["Silent"]


def test_a_head_takes_the_last_map_by_itself():
    """mmseg's in_index is -1 where it is not stated."""
    assert filled("mmseg", backbone=NANO, decode_head=dict(type="FCNHead")).decode_head == dict(
        type="FCNHead", in_channels=64
    )


def test_a_head_whose_own_part_takes_the_maps_is_left_alone():
    """K-Net."""
    head = dict(type="IterativeDecodeHead", kernel_generate_head=dict(in_channels=[8, 16, 32, 64]))
    assert filled("mmseg", backbone=NANO, decode_head=head).decode_head == head


def test_yolo_counts_from_the_coarsest_map():
    coarse = dict(NANO, out_indices=(1, 2, 3))
    neck = dict(type="YOLOV3Neck", in_channels=[64, 32, 16], out_channels=[9, 9, 9], num_scales=3)
    head = dict(featmap_strides=[32, 16, 8])
    assert filled(backbone=coarse, neck=neck, bbox_head=head).neck == neck


@pytest.mark.parametrize("backbone", ["mmdet.ResNet", dict(depth=50), 7])
def test_a_backbone_has_a_type(backbone):
    with pytest.raises(InputError, match=r"model\.backbone says what to build by its type"):
        filled(backbone=backbone, neck=FPN)


def test_a_grey_backbone_is_shown_a_grey_image():
    grey = dict(type="ResNet", depth=18, in_channels=1)
    assert filled(backbone=grey, neck=FPN).neck.in_channels == [64, 128, 256, 512]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(neck=dict(FPN, in_channels=[8, 16, 32])), r"model\.neck is given .*expects \[8, 16"),
        (dict(neck=[dict(FPN, in_channels=[9, 16, 32, 64])]), r"model\.neck\.0 is given"),
        (
            dict(panoptic_head=dict(type="Mask2FormerHead", in_channels=[1, 2, 3, 4])),
            r"model\.panoptic_head is given",
        ),
        (
            dict(auxiliary_head=dict(type="mmseg.FCNHead", in_index=1, in_channels=8)),
            r"of 16 channels.*expects 8",
        ),
        (dict(rpn_head=dict(strides=[8, 16, 32])), r"strides \[4, 8, 16, 32\].*\[8, 16, 32\]"),
    ],
)
def test_what_is_stated_must_agree(model, message):
    with pytest.raises(InputError, match=message):
        filled(backbone=NANO, **model)


def test_what_is_stated_and_agrees_stays():
    neck = dict(FPN, in_channels=[8, 16, 32, 64])
    heads = dict(featmap_strides=[4, 8, 16, 32], strides=[4, 8, 16, 32, 64])
    assert filled(backbone=NANO, neck=neck, rpn_head=heads).neck == neck


def test_one_stride_alone_is_that_of_maps_joined_into_one():
    assert filled(backbone=NANO, neck=FPN, roi_head=dict(featmap_strides=[8]))
    with pytest.raises(InputError, match=r"strides \[4, 8, 16, 32\].*\[64\]"):
        filled(backbone=NANO, neck=FPN, roi_head=dict(featmap_strides=[64]))


def test_a_model_without_a_backbone_is_left_alone():
    assert filled(neck=FPN).neck == FPN


def test_a_filled_detector_runs():
    config = filled(backbone=dict(type="ResNet", depth=18), neck=FPN)
    with MODELS.switch_scope_and_registry("mmdet") as registry, torch.no_grad():
        backbone, neck = registry.build(config.backbone), registry.build(config.neck)
        assert len(neck(backbone(torch.zeros(1, 3, 72, 104)))) == 5
