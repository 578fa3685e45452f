"""A checkpoint is chosen by a number that the evaluation gives, told before the run."""

import pytest
from mmengine.config import Config

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import save_best

COCO = dict(type="swin_dense.CocoMetric", metric="bbox")
IOU = dict(type="swin_dense.IoUMetric")


def checked(asked, evaluator, **more):
    hook = dict(type="CheckpointHook", save_best=asked, **more)
    config = Config(dict(val_evaluator=evaluator, default_hooks=dict(checkpoint=hook)))
    save_best.check(config)
    return config.default_hooks.checkpoint


@pytest.mark.parametrize(
    ("asked", "evaluator", "written"),
    [
        ("coco/bbox_mAP", COCO, "coco/bbox_mAP"),
        ("coco/bbox_AP", COCO, "coco/bbox_mAP"),
        ("coco/bbox_AR_small", COCO, "coco/bbox_AR_s@100"),
        ("mine/bbox_AP50", dict(COCO, prefix="mine"), "mine/bbox_mAP_50"),
        (["coco/segm_AP", "coco/bbox_AR_1"], dict(COCO, metric=["segm", "bbox"]), None),
        ("seg/mIoU", IOU, "mIoU"),
        ("mDice", dict(IOU, iou_metrics=["mDice"]), "mDice"),
        ("seg/mIoU", [COCO, IOU], "mIoU"),
        ("panoptic/PQ_st", dict(type="swin_dense.PanopticMetric"), "panoptic/PQ_st"),
        ("auto", COCO, "auto"),
    ],
)
def test_older_names_are_written_as_the_log_has_them(asked, evaluator, written):
    hook = checked(asked, evaluator)
    assert hook.save_best == (written or ["coco/segm_mAP", "coco/bbox_AR@1"])
    assert hook.rule == "greater"


@pytest.mark.parametrize(
    ("asked", "evaluator", "says"),
    [
        ("coco/bbox_mAp", COCO, r"'coco/bbox_mAp' is no number .* Did you mean 'coco/bbox_mAP'"),
        ("coco/segm_mAP", COCO, r"Did you mean 'coco/bbox_mAP'.* It has: coco/bbox_mAP, "),
        ("mDice", IOU, r"'mDice' is no number .* It has: aAcc, mIoU, mAcc\."),
    ],
)
def test_a_name_no_log_will_have(asked, evaluator, says):
    with pytest.raises(InputError, match=says):
        checked(asked, evaluator)


def test_others_evaluators_are_not_judged():
    hook = checked("whatever", [COCO, dict(type="mmdet.CocoMetric")])
    assert hook.save_best == "whatever"
    assert "rule" not in hook
    assert checked("coco/bbox_mAP", COCO, rule="less").rule == "less"  # their own affair
    save_best.check(Config(dict(val_evaluator=None)))
