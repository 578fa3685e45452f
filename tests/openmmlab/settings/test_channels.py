"""Channels follow the backbone, announced or shown, with a line for each stated otherwise."""

import copy
import re
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import channels, signatures
from swin_dense.registry import MODELS as OURS

NANO = dict(type="swin_dense.Swin", embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
FPN = dict(type="FPN", out_channels=16, num_outs=5)
# mmdet's backbones announce nothing. Their channels and strides by their papers.
FOREIGN = {
    "ResNet": (dict(depth=18), [64, 128, 256, 512], [4, 8, 16, 32]),
    "PyramidVisionTransformer": ({}, [64, 128, 320, 512], [4, 8, 16, 32]),
    "MobileNetV2": (dict(out_indices=(1, 2, 4)), [24, 32, 96], [4, 8, 16]),
    "EfficientNet": (dict(arch="b0", out_indices=(2, 3, 4)), [24, 40, 112], [4, 8, 16]),
}
TRANSFORMER = dict(embed_dims=24, num_layers=2, num_heads=2, out_indices=(0, 1))
DDRNET = dict(type="DDRNet", channels=8, ppm_channels=8)
# Strides that a neck hands on, or that are meant to differ from those of the maps.
RETINA = dict(neck=dict(FPN, start_level=1), bbox_head=dict(strides=[8, 16, 32, 64, 128]))
DYHEAD = dict(type="DyHead", in_channels=16, out_channels=16, num_blocks=1)
FITTING = {
    "start_level": RETINA,
    "start_level of the first": dict(RETINA, neck=[RETINA["neck"], DYHEAD]),
    "start_level by itself": dict(RETINA, neck=dict(FPN, type="NASFCOS_FPN")),
    "SOLO": dict(neck=FPN, mask_head=dict(strides=[8, 8, 16, 32, 32])),
    "YOLACT": dict(RETINA, bbox_head=dict(strides=[550 / side for side in (69, 35, 18, 9, 5)])),
    "SSD": dict(neck=FPN, bbox_head=dict(strides=[4, 8, 16, 32, 53])),
    "pairs": dict(neck=FPN, bbox_head=dict(strides=[(4, 4), (8, 8)])),
}
MISTAKES = {
    "patch_size 2": dict(patch_size=2),
    "patch_size 3": dict(patch_size=3),
    "patch_size 5": dict(patch_size=5),
    "patch_size 8": dict(patch_size=8),
    "not the first map": dict(out_indices=(1, 2, 3)),
    "not the second": dict(out_indices=(0, 2, 3)),
}
# A family's folder, or a config -> why it cannot be tried.
UNTRIED = {
    "common": "data and schedules, no model",
    "convnext": "needs mmpretrain",
    "poolformer": "needs mmpretrain",
    "reid": "needs mmpretrain",
    "timm_example": "needs mmpretrain",
    "vpd": "needs Stable Diffusion",
    "cascade-rpn_r50-caffe_fpn_1x_coco.py": "lacks the num_classes of its head",
    "fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x.py": "states what mmdet's FPN does not take",
}
FAMILIES = [
    family
    for library in (mmdet, mmseg)
    for family in sorted((Path(library.__file__).parent / ".mim/configs").iterdir())
    if family.name not in {"_base_", *UNTRIED}
]
# Seconds each to build; tried with the slow tests.
LARGE = {"beit", "bytetrack", "centripetalnet", "cornernet", "fpg", "glip", "grounding_dino", "mae"}
LARGE |= {"mm_grounding_dino", "pvt", "res2net", "resnest", "rtmdet", "setr", "twins", "unet"}


def corrected(scope="mmdet", **model):
    """(the model with its channels, the lines about those that were stated otherwise)."""
    config = Config(dict(default_scope=scope, model=copy.deepcopy(model)))
    lines = channels.fill(config)
    return config.model, lines


def filled(*scope, **model):
    found, lines = corrected(*scope, **model)
    assert lines == []
    return found


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


def test_a_backbone_takes_nothing_out_of_the_config():
    """mmdet's ResNet does, of what it is built from."""
    stages = dict(stage_with_dcn=(False, False, False, True))
    backbone = dict(type="ResNet", depth=50, dcn=dict(type="DCN", fallback_on_stride=False))
    assert filled(backbone=dict(backbone, **stages)).backbone == dict(backbone, **stages)


def test_weights_named_in_the_config_are_not_read_for_it():
    start = dict(type="Pretrained", checkpoint="nowhere.pth")
    assert filled(backbone=dict(NANO, init_cfg=start), neck=FPN).backbone.init_cfg == start


def test_parts_of_a_neck_feed_each_other():
    other = dict(type="FPN", out_channels=24, num_outs=6)
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


@pytest.mark.parametrize("part", ["FPN", dict(out_channels=256), 7])
@pytest.mark.parametrize("name", ["neck", *channels.HEADS])
def test_a_neck_and_a_head_have_a_type(name, part):
    fill_in = rf"Fill it in, as in model = dict\({name}=dict\(type="
    with pytest.raises(InputError, match=rf"model\.{name} says what to build.* {fill_in}"):
        filled(backbone=NANO, **{name: part})
    with pytest.raises(InputError, match=rf"model\.{name}\.1 says what to build.* {fill_in}"):
        filled(backbone=NANO, **{name: [FPN, part]})


@pytest.mark.parametrize("image", [{}, dict(img_size=32), dict(img_size=(48, 32))])
@pytest.mark.parametrize("kind", ["BEiT", "MAE", "VisionTransformer"])
def test_a_backbone_of_one_size_is_shown_an_image_of_that_size(kind, image):
    backbone = dict(type=kind, **TRANSFORMER, **image)
    head = dict(type="UPerHead", in_index=[0, 1])
    strides = dict(featmap_strides=[16, 16])
    model = filled("mmseg", backbone=backbone, decode_head=head, x=strides)
    assert model.decode_head.in_channels == [24, 24]


def test_a_large_image_is_not_computed_on():
    """Attention of 65536 tokens to one another would take 16 GiB."""
    backbone = dict(type="VisionTransformer", img_size=1024, patch_size=4, **TRANSFORMER)
    assert filled("mmseg", backbone=backbone, decode_head=dict(type="FCNHead"))


def test_a_map_alone_is_one_map():
    @OURS.register_module(name="Alone", force=True)
    class Alone(torch.nn.Conv2d):
        def __init__(self):
            super().__init__(3, 12, 4, stride=4)
            del self.out_channels, self.in_channels

        def forward(self, image):
            return self._conv_forward(image, self.weight, self.bias)

    try:
        head = dict(type="mmseg.FCNHead")
        backbone = dict(type="swin_dense.Alone")
        assert filled(backbone=backbone, decode_head=head).decode_head.in_channels == 12
    finally:
        del OURS.module_dict["Alone"]


@pytest.mark.parametrize(
    ("backbone", "why"),
    [
        (DDRNET, "DDRNet returns other maps in training than"),
        (dict(type="PIDNet", channels=8, ppm_channels=8), "PIDNet returns other maps in training"),
        (
            dict(type="VisionTransformer", output_cls_token=True, **TRANSFORMER),
            r"VisionTransformer returned no maps \(TypeError",
        ),
    ],
    ids=["DDRNet", "PIDNet", "tokens"],
)
def test_where_a_backbone_does_not_tell_one_message_says_what_to_state(backbone, why):
    stated = dict(
        decode_head=dict(type="FCNHead", in_channels=77),
        auxiliary_head=[dict(type="FCNHead", in_channels=78, in_index=5)],
        x=dict(strides=[3, 5]),
    )
    assert filled("mmseg", backbone=backbone, **stated).decode_head.in_channels == 77
    some = [dict(type="FCNHead", in_channels=78), dict(type="FCNHead", in_index=0)]
    what = r"State model\.decode_head\.in_channels, model\.auxiliary_head\.1\.in_channels\.$"
    with pytest.raises(InputError, match=rf"{why}.* {what}"):
        filled("mmseg", backbone=backbone, decode_head=dict(type="FCNHead"), auxiliary_head=some)


def test_heads_behind_a_neck_need_no_backbone_that_tells():
    heads = dict(decode_head=dict(type="FCNHead"), auxiliary_head=dict(type="FCNHead", in_index=0))
    model = filled("mmseg", backbone=DDRNET, neck=dict(FPN, in_channels=[16, 32]), **heads)
    assert model.decode_head.in_channels == model.auxiliary_head.in_channels == 16
    with pytest.raises(InputError, match=r"DDRNet .* State model\.neck\.in_channels\.$"):
        filled("mmseg", backbone=DDRNET, neck=FPN, **heads)


@pytest.fixture(scope="module")
def told_once():
    """Many stock configs have the same backbone."""
    matters_not = {"init_cfg", "frozen_stages", "norm_cfg", "norm_eval", "style"}
    announced, known = channels.announced, {}

    def told(registry, backbone):
        key = repr({k: v for k, v in backbone.items() if k not in matters_not})
        if key not in known:
            known[key] = announced(registry, backbone)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channels, "announced", told)
        yield


def loaded(family):
    """Each of its configs that has a backbone, those of short names first; a few do not load."""
    for path in sorted(family.rglob("*.py"), key=lambda path: (len(path.name), path.name)):
        try:
            config = Config.fromfile(str(path))
        except (ImportError, FileNotFoundError):
            continue
        if "backbone" in config.get("model", {}) and path.name not in UNTRIED:
            yield path.name, config


def kept(config):
    """Whether nothing of a config is found wrong, or changed."""
    before = copy.deepcopy(config.model)
    signatures.check(config)
    return channels.fill(config) == [] and config.model == before


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.name not in LARGE], ids=lambda family: family.name
)
@pytest.mark.usefixtures("told_once")
def test_a_stock_config_is_not_refused(family):
    for name, config in loaded(family):
        assert kept(config), name
        break


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.usefixtures("told_once")
def test_no_stock_config_is_refused(family):
    for name, config in loaded(family):
        assert kept(config), name


def test_a_grey_backbone_is_shown_a_grey_image():
    grey = dict(type="ResNet", depth=18, in_channels=1)
    assert filled(backbone=grey, neck=FPN).neck.in_channels == [64, 128, 256, 512]


@pytest.mark.parametrize(
    ("backbone", "part", "stated", "wanted"),
    [
        (NANO, dict(neck=FPN), [8, 16, 32], [8, 16, 32, 64]),
        (dict(type="ResNet", depth=18), dict(neck=FPN), [8, 16, 32, 64], [64, 128, 256, 512]),
        (NANO, dict(panoptic_head=dict(type="Mask2FormerHead")), [1, 2, 3, 4], [8, 16, 32, 64]),
        (NANO, dict(decode_head=dict(type="mmseg.UPerHead", in_index=[1, 3])), [5, 6], [16, 64]),
        (NANO, dict(auxiliary_head=dict(type="mmseg.FCNHead", in_index=1)), 8, 16),
        (NANO, dict(decode_head=dict(type="mmseg.FCNHead", in_index=-2)), [7], 32),
    ],
)
def test_what_is_stated_follows_the_backbone_and_a_line_says_so(backbone, part, stated, wanted):
    ((name, node),) = part.items()
    for several in (False, True):
        given = dict(node, in_channels=stated)
        model, lines = corrected(backbone=backbone, **{name: [given] if several else given})
        found = model[name][0] if several else model[name]
        assert found.in_channels == wanted
        assert found == dict(node, in_channels=wanted)
        place = f"model.{name}.0" if several else f"model.{name}"
        assert lines == [f"{place}.in_channels: {stated} -> {wanted} (follows the backbone)"]


def test_a_neck_behind_a_corrected_one_follows_it():
    necks = [dict(FPN, in_channels=[9, 9, 9, 9]), dict(FPN, in_channels=[7, 7], num_outs=6)]
    model, lines = corrected(backbone=NANO, neck=necks)
    assert [neck.in_channels for neck in model.neck] == [[8, 16, 32, 64], [16] * 5]
    assert len(lines) == 2


def test_a_yolo_neck_still_counts_from_the_coarsest_map_when_corrected():
    neck = dict(type="YOLOV3Neck", out_channels=[9, 9, 9], num_scales=3)
    coarse = dict(NANO, out_indices=(1, 2, 3))
    model, lines = corrected(backbone=coarse, neck=dict(neck, in_channels=[1024, 512, 256]))
    assert model.neck.in_channels == [64, 32, 16]
    assert len(lines) == 1


def test_the_head_within_a_head_of_k_net_follows():
    inner = dict(type="UPerHead", in_index=[0, 2], in_channels=[5, 6])
    head = dict(type="IterativeDecodeHead", kernel_generate_head=inner)
    model, lines = corrected("mmseg", backbone=NANO, decode_head=head)
    assert model.decode_head.kernel_generate_head.in_channels == [8, 32]
    assert lines[0].startswith("model.decode_head.kernel_generate_head.in_channels: [5, 6] -> ")
    assert "in_channels" not in model.decode_head


def test_strides_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"strides \[4, 8, 16, 32\].*\[8, 16, 32\]"):
        filled(backbone=NANO, rpn_head=dict(strides=[8, 16, 32]))


def test_a_neck_that_takes_what_it_is_given_may_state_less():
    """CLRNet's."""
    neck = dict(type="CLRFPN", in_channels=[8, 16, 32], out_channels=16, num_outs=3)
    assert filled(backbone=NANO, neck=neck).neck == neck
    model, lines = corrected(backbone=NANO, neck=dict(neck, in_channels=[8, 16, 31]))
    assert model.neck.in_channels == [8, 16, 32]
    assert len(lines) == 1


class Boaster(torch.nn.Module):
    """Announces what it is told to, and returns maps of 6 and 10 channels, 64 and 16 wide."""

    def __init__(self, out_channels, out_strides=None):
        super().__init__()
        self.out_channels, self.out_strides = out_channels, out_strides

    def forward(self, image):
        maps = image.mean(1, keepdim=True)
        return tuple(maps[:, :, ::s, ::s].expand(-1, c, -1, -1) for c, s in ((6, 2), (10, 8)))


@pytest.fixture
def boaster():
    OURS.register_module(name="Boaster", module=Boaster)
    yield dict(type="swin_dense.Boaster")
    del OURS.module_dict["Boaster"]


@pytest.mark.parametrize("strides", [None, (2, 8)])
def test_a_backbone_of_others_that_announces_what_it_returns(boaster, strides):
    backbone = dict(boaster, out_channels=[6, 10], out_strides=strides)
    model = filled(backbone=backbone, neck=FPN, x=dict(strides=[2, 8]))
    assert model.neck.in_channels == [6, 10]
    with pytest.raises(InputError, match=r"have strides \[2, 8\]"):
        filled(backbone=backbone, neck=FPN, x=dict(strides=[4, 8]))


@pytest.mark.parametrize(
    ("channels", "strides"), [([6, 11], [2, 8]), ([6], None), ([6, 10], [4, 8])]
)
def test_a_backbone_that_announces_what_it_does_not_return(boaster, channels, strides):
    announced = rf"out_channels {re.escape(str(channels))}"
    announced += rf" and out_strides {re.escape(str(strides))}" if strides else ", but"
    says = rf"model\.backbone: Boaster announces {announced}.*\[6, 10\] channels .* \[2, 8\]"
    with pytest.raises(InputError, match=says):
        filled(backbone=dict(boaster, out_channels=channels, out_strides=strides), neck=FPN)


@pytest.mark.parametrize("name", FITTING)
def test_strides_are_those_behind_the_neck(name):
    assert filled(backbone=NANO, **FITTING[name])
    assert filled(backbone=dict(type="ResNet", depth=18), **FITTING[name])


@pytest.mark.parametrize("name", ["start_level", "SOLO", "YOLACT", "SSD"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_backbone_changed_alone_is_refused(name, mistake):
    with pytest.raises(InputError, match=r"strides .* Change patch_size or out_indices"):
        filled(backbone=dict(NANO, **MISTAKES[mistake]), **FITTING[name])


@pytest.mark.parametrize("size", [5, 6, 7])
def test_patches_that_do_not_divide_the_image_that_is_shown(size):
    small = dict(embed_dims=24, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    backbone = dict(type="SwinTransformer", patch_size=size, strides=(size, 2, 2, 2), **small)
    head = dict(strides=[size, 2 * size, 4 * size, 8 * size])
    assert filled(backbone=backbone, neck=FPN, bbox_head=head).bbox_head == head
    with pytest.raises(InputError, match=rf"strides \[{size}, .*with \[4, 8, 16, 32\]"):
        filled(backbone=backbone, neck=FPN, bbox_head=dict(strides=[4, 8, 16, 32]))


def test_a_neck_may_make_a_pyramid_of_maps_of_one_size():
    four = dict(TRANSFORMER, num_layers=4, out_indices=(0, 1, 2, 3))
    plain = dict(type="mmseg.VisionTransformer", **four)
    neck = dict(type="mmseg.Feature2Pyramid", embed_dim=24)
    head = dict(featmap_strides=[4, 8, 16, 32])
    assert filled(backbone=plain, neck=neck, roi_head=head).roi_head == head
    with pytest.raises(InputError, match=r"strides \[4, 8, 16\].*\[8, 16, 32\]"):
        filled(backbone=plain, neck=neck, roi_head=dict(featmap_strides=[8, 16, 32]))


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
