"""Wrong arguments and types of a config, against classes written for it and those of OpenMMLab."""

import inspect
import typing

import pytest
import torch
from mmengine.config import Config
from torch import nn

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import signatures

SWIN = dict(type="swin_dense.Swin", embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8))
FPN = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)


def complete(**model):
    """A two-stage detector's config, as far as signatures tell."""
    rest = dict.fromkeys(("rpn_head", "roi_head", "train_cfg", "test_cfg"))
    whole = dict(dict(type="MaskRCNN", backbone=SWIN, **rest), **model)
    return Config(dict(default_scope="mmdet", model=whole))


def complaint(config):
    with pytest.raises(InputError) as refused:
        signatures.check(config)
    return str(refused.value)


def test_what_fits_is_silent():
    signatures.check(complete(backbone=SWIN, neck=FPN))


def test_all_spellings_of_mmdet_s_swin_are_named_at_once():
    """Its arguments that ours has under another name, and one that ours has not."""
    other = dict(embed_dims=96, use_abs_pos_embed=True, patch_norm=True, convert_weights=True)
    lines = complaint(complete(backbone=dict(SWIN, **other))).splitlines()
    assert lines[0] == "config: 3 mistakes:"
    start = "  model.backbone: Swin takes no argument "
    assert lines[1] == f"{start}'embed_dims'. Did you mean 'embed_dim'?"
    assert lines[2] == f"{start}'use_abs_pos_embed'. Did you mean 'ape'?"
    assert lines[3].startswith(f"{start}'convert_weights'. It takes: ")
    assert ", embed_dim, depths, num_heads," in lines[3]


def test_mistakes_of_all_parts_come_in_one_message():
    config = complete(backbone=dict(SWIN, depht=3), neck=dict(FPN, num_out=5))
    config.train_dataloader = dict(
        batchsize=2,
        dataset=dict(
            type="RepeatDataset",
            dataset=dict(type="CocoDataset", anno_file="x", pipeline=[dict(type="Resze")]),
        ),
        sampler=dict(type="DefaultSampler", shufle=True),
    )
    config.optim_wrapper = dict(
        type="OptimWrapper",
        constructor="swin_dense.LayerDecay",
        optimizer=dict(type="Adamm", lr=1e-4),
        paramwise_cfg=dict(layer_decay=0.9),
    )
    config.param_scheduler = [dict(type="LinearLR", start_facto=0.1, convert_to_iter_based=True)]
    config.default_hooks = dict(logger=dict(type="LoggerHook", intervall=2, priority=50))
    config.val_evaluator = [dict(type="CocoMetric", metrics="bbox")]
    config.train_cfg = dict(by_epoch=True, max_epochs=3)
    config.val_cfg = dict(type="ValLop")
    found = complaint(config)
    for says in (
        "model.backbone: Swin takes no argument 'depht'. Did you mean 'depths'?",
        "model.neck: FPN takes no argument 'num_out'. Did you mean 'num_outs'?",
        "train_dataloader: a data loader takes no argument 'batchsize'. Did you mean 'batch_size'?",
        "train_dataloader.dataset.dataset: CocoDataset takes no argument 'anno_file'. Did you mean "
        "'ann_file'?",
        "train_dataloader.dataset.dataset.pipeline.0: there is no type 'Resze'. Did you mean "
        "'Resize'?",
        "train_dataloader.sampler: DefaultSampler takes no argument 'shufle'. Did you mean",
        "optim_wrapper.optimizer: there is no type 'Adamm'. Did you mean 'Adam'?",
        "param_scheduler.0: LinearLR takes no argument 'start_facto'.",
        "default_hooks.logger: LoggerHook takes no argument 'intervall'. Did you mean 'interval'?",
        "val_evaluator.0: CocoMetric takes no argument 'metrics'. Did you mean 'metric'?",
        "val_cfg: there is no type 'ValLop'. Did you mean 'ValLoop'?",
    ):
        assert found.count(says) == 1, says
    assert found.startswith("config: 11 mistakes:\n")


def test_what_is_lacking_is_named_once_with_what_is_misspelt():
    config = Config(dict(default_scope="mmdet", model=dict(type="MaskRCNN", backbon=SWIN)))
    found = complaint(config)
    lacks = "'backbone', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg'"
    assert f"model: MaskRCNN lacks {lacks}." in found
    assert "model: MaskRCNN takes no argument 'backbon'. Did you mean 'backbone'?" in found
    assert "model.neck: FPN lacks 'num_outs'." in complaint(
        complete(neck=dict(type="FPN", out_channels=8))  # in_channels is filled in
    )


def test_a_model_has_a_backbone():
    assert complaint(complete(backbone=None)).startswith(
        "config: model: MaskRCNN lacks 'backbone'."
    )


def test_a_model_has_a_type():
    config = Config(dict(default_scope="mmdet", model=dict(backbone=SWIN)))
    assert "model says what to build by its type" in complaint(config)


@pytest.mark.parametrize(
    ("scope", "kind", "says"),
    [
        ("mmdet", "SwinV2", "there is no type 'SwinV2'. Write type='swin_dense.SwinV2'."),
        ("mmdet", "UPerHead", "Write type='mmseg.UPerHead'."),
        ("mmseg", "mmdet.SwinV2", "Write type='swin_dense.SwinV2'."),
        ("mmdet", "swin_dense.Swim", "Did you mean 'swin_dense.Swin'?"),
        ("mmdet", "ResNett", "Did you mean 'ResNet'?"),
        ("mmseg", "mmpretrain.ResNet", "Nothing of 'mmpretrain' is known here: install it"),
        ("mmdet", "Zzzzzzz", "Classes of this project start with 'swin_dense.'; for one of yours"),
    ],
)
def test_an_unknown_type_gets_the_name_to_write(scope, kind, says):
    config = complete(backbone=dict(type=kind))
    config.default_scope = scope
    config.model.type = "mmdet.MaskRCNN"
    assert f"model.backbone: there is no type {kind!r}. " in complaint(config)
    assert says in complaint(config)


def test_a_misspelt_type_deep_in_a_model_is_found():
    head = dict(type="RPNHead", in_channels=8, loss_cls=dict(type="CrosEntropyLoss"))
    found = complaint(complete(rpn_head=head))
    assert "model.rpn_head.loss_cls: there is no type 'CrosEntropyLoss'. Did you mean" in found


def test_a_misspelt_kind_of_layer_is_found():
    neck = dict(FPN, norm_cfg=dict(type="BNN", num=3))
    assert complaint(complete(neck=neck)).startswith(
        "config: model.neck.norm_cfg: there is no type 'BNN'. Did you mean 'BN"
    )


def test_what_is_not_registered_or_completed_by_others_is_left_alone():
    nms = dict(type="nms", iou_threshold=0.7)
    norm = dict(type="GN", num_groups=4, requires_grad=True)
    extractor = dict(
        type="SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=7),
        out_channels=8,
        featmap_strides=[4],
    )
    signatures.check(
        complete(
            neck=dict(FPN, norm_cfg=norm, init_cfg=dict(type="Xavier", layer="Conv2d")),
            roi_head=dict(type="StandardRoIHead", bbox_roi_extractor=extractor),
            test_cfg=dict(rpn=dict(nms=nms)),
        )
    )


def test_a_class_itself_may_be_the_type():
    found = complaint(complete(backbone=dict(type=Passing, last=1, b=2, c=3)))
    assert "model.backbone: Passing takes no argument 'c'. It takes: a, b, last." in found


class Base(nn.Module):
    def __init__(self, a=1, b=2):
        super().__init__()


class Passing(Base):
    def __init__(self, last, **kwargs):
        super().__init__(**kwargs)


class Reading(Base):
    def __init__(self, **kwargs):
        self.other = kwargs.pop("other")
        super().__init__(**kwargs)


class Swallowing(Base):
    def __init__(self, **kwargs):
        super().__init__()


class Side:
    def __init__(self, side=3, **kwargs):
        super().__init__(**kwargs)


class Both(Side, Base):
    pass


class Bare:
    pass


@pytest.mark.parametrize(
    ("kind", "arguments", "required", "closed"),
    [
        (Base, {"a", "b"}, (), True),
        (Passing, {"last", "a", "b"}, ("last",), True),
        (Reading, set(), (), False),
        (Swallowing, set(), (), False),
        (Both, {"side", "a", "b"}, (), True),
        (Bare, set(), (), True),
        (nn.Identity, set(), (), False),
        (lambda x, y=2: x, {"x", "y"}, ("x",), True),
        (lambda **rest: rest, set(), (), False),
    ],
)
def test_what_a_class_takes(kind, arguments, required, closed):
    found = signatures.signature(kind)
    assert set(found.arguments) == arguments
    assert found.required == required
    assert found.closed == closed


def test_defaults_are_found_through_what_passes_them_on():
    assert signatures.default(Passing, "b") == 2
    assert signatures.default(Passing, "last") is signatures.inspect.Parameter.empty
    assert signatures.default(Passing, "none") is None
    assert signatures.default(torch.zeros, "size") is None


class Takes(nn.Module):
    def __init__(self, in_channels, in_index=(0, 2)):
        super().__init__()


class ReadsFirst(Takes):
    def __init__(self, width=7, **kwargs):
        kwargs.setdefault("in_index", None)
        super().__init__(**kwargs)


def test_a_default_is_found_behind_a_constructor_that_reads_its_kwargs():
    """As mmseg's Mask2Former does, whose in_channels is mmdet's."""
    assert signatures.default(ReadsFirst, "in_channels") is signatures.inspect.Parameter.empty
    assert signatures.default(ReadsFirst, "in_index") == (0, 2)
    assert signatures.default(ReadsFirst, "width") == 7
    assert signatures.default(ReadsFirst, "height") is None


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (list[int], True),
        (tuple[float, float] | None, True),
        (typing.Union[list[int], list[tuple[int, int]]], True),  # noqa: UP007
        ("Optional[List[int]]", False),  # in words only what is sure
        ("List[Tuple[int, int]] | None", True),
        (list[int] | int, False),
        (typing.Any, False),
        (float, False),
        (inspect.Parameter.empty, False),
    ],
)
def test_what_wants_a_list(note, expected):
    parameter = inspect.Parameter("a", inspect.Parameter.KEYWORD_ONLY, annotation=note)
    assert signatures.wants_a_list(parameter) == expected


def test_a_number_is_no_list_of_anchor_scales():
    """mmdet makes torch.Tensor(4) of it, four values of uninitialised memory."""
    coder = {"type": "DeltaXYWHBBoxCoder", "target_stds": 0.5}
    anchors = {"type": "AnchorGenerator", "scales": 4, "ratios": [1.0], "strides": [8, 16]}
    model = {"type": "RetinaNet", "backbone": None, "neck": None}
    model["bbox_head"] = {"type": "RetinaHead", "num_classes": 3, "in_channels": 8}
    model["bbox_head"] |= {"anchor_generator": anchors, "bbox_coder": coder}
    with pytest.raises(InputError) as error:
        signatures.check(Config({"default_scope": "mmdet", "model": model}))
    assert "AnchorGenerator.scales is a list, and 4 is none. Write [4]" in str(error.value)
    assert "DeltaXYWHBBoxCoder.target_stds is a list, and 0.5 is none" in str(error.value)
