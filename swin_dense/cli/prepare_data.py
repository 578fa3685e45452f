"""Make another format, or archives, into a data root that training takes.

  prepare_data.py coco DIR --out data/coco              train2017.zip, val2017.zip, annotations_...
  prepare_data.py ade20k ADEChallengeData2016.zip --out data/ADEChallengeData2016
  prepare_data.py voc VOCtrainval_11-May-2012.tar --out data/voc
  prepare_data.py cityscapes DIR --out data/cityscapes  leftImg8bit_..., gtFine_trainvaltest.zip
  prepare_data.py yolo|labelme|cvat SOURCE --out data/mine --val-share 0.2
  prepare_data.py custom SOURCE --out data/mine         looks which of them it is

Nothing is downloaded, and the source is never changed. The folder appears when all of it is
written and checked; a run that was stopped goes on when it is given again.
"""

import argparse
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command, worded

FORMATS = ("coco", "ade20k", "voc", "cityscapes", "yolo", "labelme", "cvat", "custom")


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/prepare_data.py", __doc__)
    parser.add_argument("format", choices=FORMATS, help="what the source is")
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, an archive (.zip .tar .tar.gz .tgz) or several "
        "archives in a folder"
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the data root to make; it must not exist yet"
    )
    parser.add_argument(
        "--task",
        choices=["instances", "label-maps"],
        help="what to make of it, where the format has both (instances; of cityscapes label-maps)",
    )
    options.add_val_share(parser)
    parser.add_argument(
        "--group-by",
        choices=["folder", "prefix"],
        help="with --val-share: keep images together that are in one folder, or whose names are "
        "equal up to the last _ or -",
    )
    parser.add_argument(
        "--subset",
        type=options.positive,
        metavar="N",
        help="take N images of each part, or, before --val-share, of all; each class in its share",
    )
    parser.add_argument(
        "--seed", type=options.natural, default=0, help="of --subset and --val-share (0)"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="the names of label values 0, 1, 2, ..., for custom"
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="make hard links instead of copies, where the disk is the same: no room is taken",
    )
    return parser


def _prepare(asked: argparse.Namespace) -> None:
    from swin_dense.errors import InputError
    from swin_dense.preparation import prepare

    if asked.group_by and asked.val_share is None:
        raise InputError("`group_by` says what stays together in a division: add `val_share`.")
    chosen = prepare.Options(
        task=asked.task,
        subset=asked.subset,
        val_share=asked.val_share,
        seed=asked.seed,
        group_by=asked.group_by,
        classes=Path(asked.classes) if asked.classes else None,
        link=asked.link,
    )
    out = prepare.prepare(asked.format, Path(asked.source), Path(asked.out), chosen, _say)
    _say(f"ready: {out}; train with --data-root {out}")


def _say(text: str) -> None:
    print(worded(text, _PARSER), flush=True)


_PARSER = _parser()
main = command(_prepare, _PARSER)
