"""Which part is named when a constructor refuses what it is given."""

import pytest
import torch
from mmengine.registry import MODELS

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import building

RESNET = dict(type="ResNet", depth=18)
FPN = dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5)


def model(**parts):
    rest = dict.fromkeys(("rpn_head", "roi_head", "train_cfg", "test_cfg"))
    return dict(dict(type="MaskRCNN", backbone=RESNET, **rest), **parts)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            dict(backbone=dict(RESNET, depth=51)),
            "model.backbone: ResNet cannot be built: 'invalid depth 51",
        ),
        (
            dict(neck=[FPN, dict(FPN, num_outs=2)]),
            "model.neck.1: FPN cannot be built: it requires: assert num_outs >= self.num_ins",
        ),
        (  # what is complete only within the neck
            dict(neck=dict(FPN, norm_cfg=dict(type="BNN"))),
            "model.neck: FPN cannot be built: 'Cannot find ",
        ),
    ],
)
def test_the_innermost_part_that_refuses_is_named(parts, says):
    scope = MODELS.switch_scope_and_registry("mmdet")
    with scope as registry, pytest.raises(InputError) as refused:
        building.build(registry, model(**parts), "model")
    assert str(refused.value).startswith(f"config: {says}")


def test_what_fits_is_built_as_it_is():
    with MODELS.switch_scope_and_registry("mmdet") as registry:
        built = building.build(registry, dict(FPN), "model.neck")
    assert [conv.in_channels for conv in (c.conv for c in built.lateral_convs)] == FPN[
        "in_channels"
    ]


def test_other_errors_pass_unchanged():
    for error in (RuntimeError("ours"), ValueError("ours"), InputError("ours")):
        with pytest.raises(type(error), match=r"^ours$"), building.refusals("a thing"):
            raise error
    says = r"^config: a thing cannot be built: theirs$"
    with pytest.raises(InputError, match=says), building.refusals("a thing"):
        raise TypeError("theirs")
    assert torch.get_default_device() == torch.device("cpu")
