"""Train a detector or a segmentor; the config says which."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from swin_dense.cli import options
from swin_dense.cli.command import command, first_process, worded, work_dir
from swin_dense.errors import InputError
from swin_dense.task import Task

if TYPE_CHECKING:
    from mmengine.config import Config

    from swin_dense.checkpoints.files import Checkpoint


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/train.py", __doc__)
    options.add_config(parser)
    options.add_data(parser)
    options.add_val_share(parser)
    parser.add_argument(
        "--work-dir", metavar="DIR", help="checkpoints and logs (work_dirs/<config name>)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        metavar="PATH",
        help="go on from a checkpoint, without PATH from the last one in the work dir",
    )
    parser.add_argument(
        "--extend",
        action="store_true",
        help="with --resume: go on to the length of this config or --max-iters, along its schedule",
    )
    parser.add_argument(
        "--load-from", metavar="PATH", help="start from these weights of a whole model"
    )
    parser.add_argument(
        "--pretrained",
        metavar="WEIGHTS",
        help="start the backbone from these: a path, an https or hf:// address, or a name of the "
        "authors' weights such as swin_tiny_patch4_window7_224",
    )
    options.add_allow_missing(parser)
    parser.add_argument("--amp", choices=["bf16", "fp16"], help="mixed precision")
    parser.add_argument(
        "--seed", type=options.natural, help="of weights and data order (the config's, else 0)"
    )
    parser.add_argument(
        "--max-iters", type=int, metavar="N", help="train N iterations, the schedule scaled to it"
    )
    parser.add_argument(
        "--class-weights",
        choices=["median", "inverse"],
        help="of label maps: weigh the loss of each class by its frequency among the pixels",
    )
    parser.add_argument(
        "--repeat-factor",
        type=options.part,
        metavar="T",
        help="of objects: images with a class that fewer than this share of the images show, say "
        "0.001, come several times in an epoch",
    )
    parser.add_argument(
        "--no-scale-lr",
        action="store_true",
        help="take the config's learning rate as it is, whatever the batch size",
    )
    parser.add_argument(
        "--no-val", action="store_true", help="do not evaluate during and after the training"
    )
    parser.add_argument(
        "--ema",
        nargs="?",
        const=0.0002,
        type=options.part,
        metavar="MOMENTUM",
        help="keep an exponential average of weights and buffers, which is what is evaluated and "
        "saved (0.0002: over 5000 iterations, at first over a tenth of those done)",
    )
    parser.add_argument(
        "--accumulate",
        type=options.positive,
        metavar="N",
        help="add up the gradients of N batches before a step, which the learning rate follows; "
        "the length stays in batches (1)",
    )
    parser.add_argument(
        "--log-to",
        action="append",
        choices=["tensorboard", "wandb", "mlflow"],
        help="show losses, rates and results there, too; may be given several times",
    )
    parser.add_argument(
        "--early-stop",
        type=options.positive,
        metavar="N",
        help="end after N evaluations without a better result: the config's save_best, else mAP of "
        "masks or boxes, mIoU or PQ",
    )
    parser.add_argument(
        "--on-not-finite",
        choices=["stop", "skip", "back"],
        help="at a gradient that is not finite: end the run, leave the batch out, or go on with "
        "the last checkpoint's weights; tools/replay.py shows what happened (stop)",
    )
    options.add_launcher(parser)
    return parser


def _train(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files
    from swin_dense.openmmlab.engine import run, run_folder
    from swin_dense.openmmlab.settings import additions, fits, image_sizes, places, whole_sets
    from swin_dense.openmmlab.settings import config as configs

    config = configs.load(asked.config, asked.cfg_options, _say, asked.trust_config)
    _add(config, asked)
    config.work_dir = (
        asked.work_dir or config.get("work_dir") or f"work_dirs/{Path(asked.config).stem}"
    )
    config.launcher = asked.launcher
    before = _before(config, asked)
    _seed(config, asked.seed, before)
    files.require_place(config.work_dir, "--work-dir")
    splits = ("train",) if asked.no_val else ("train", "val")
    resumed = Path(asked.resume).parent if asked.resume not in (None, "latest") else None
    share = whole_sets.Share(
        asked.val_share, config.randomness.seed, Path(config.work_dir),
        resumed or (Path(config.work_dir) if asked.resume else None),
    )  # fmt: skip
    for line in places.complete_data(
        config, splits, asked.data, asked.data_root, asked.classes, share
    ):
        _say(line)
    if asked.image_scale:
        image_sizes.scale_images(config, asked.image_scale)
    fits.require_pixels(config, splits)
    if asked.no_val:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if asked.max_iters is not None:
        for line in run.shorten(config, asked.max_iters, asked.cfg_options or ()):
            _say(line)
    if asked.early_stop:
        _say(additions.early_stop(config, asked.early_stop))
    if asked.on_not_finite:
        config.on_not_finite = asked.on_not_finite
    if asked.amp:
        run.use_amp(config, asked.amp)
    if asked.no_scale_lr and config.get("auto_scale_lr"):
        config.auto_scale_lr.enable = False
    elif not config.get("auto_scale_lr"):
        _say("learning rate: as stated, the config names no recipe batch (auto_scale_lr)")
    if asked.extend:
        if not config.get("resume"):
            raise InputError(
                "--extend makes a run longer that is resumed: name its checkpoint with --resume."
            )
        config.extend = True
    if asked.allow_missing:
        config.allow_missing = asked.allow_missing
    if before is not None:
        _agree_on_classes(config, before)
        del before  # its weights; the run reads them when it has a place for them
    _balance(config, asked)

    folder = Path(config.work_dir)
    alone = run_folder.owned(folder) if first_process() else contextlib.nullcontext()
    with work_dir(folder), alone:
        run.train(config, asked.pretrained, _say)
    mean = ", both the average of the weights" if additions.stated(config)["ema"] else ""
    _say(f"checkpoints and half-precision weights{mean}, and the log: {config.work_dir}")
    _say(f"curve of the training: {Path(config.work_dir) / 'curve.png'} and training.html there")


def _add(config: "Config", asked: argparse.Namespace) -> None:
    """Write what is added by options of their own into the config."""
    from swin_dense.openmmlab.settings import additions, trackers

    if asked.ema:
        additions.average(config, asked.ema)
    if asked.accumulate:
        if "optim_wrapper.accumulative_counts" in (asked.cfg_options or ()):
            raise InputError(
                "--accumulate and optim_wrapper.accumulative_counts state the same. Leave one out."
            )
        additions.accumulate(config, asked.accumulate)
    if asked.log_to:
        trackers.add(config, asked.log_to)
    trackers.require_installed(config)


def _agree_on_classes(config: "Config", checkpoint: "Checkpoint") -> None:
    """Order the classes as the heads were trained; with other classes heads start anew."""
    from swin_dense.openmmlab.engine import weights
    from swin_dense.openmmlab.settings import classes

    trained = weights.class_names(checkpoint)
    found = tuple(config.train_dataloader.dataset.metainfo.classes)
    segmentation = Task.of(config) is Task.SEMANTIC
    if trained is None or trained == found:
        return
    if config.get("resume") or set(trained) == set(found):
        weights.require_classes(trained, found, config.load_from, ordered=segmentation)
        classes.set_classes(config, trained, weights.thing_names(checkpoint))


def _balance(config: "Config", asked: argparse.Namespace) -> None:
    """Have rare classes count for more, as asked."""
    from swin_dense.openmmlab.settings import balance

    lines = balance.weigh_classes(config, asked.class_weights) if asked.class_weights else []
    if asked.repeat_factor:
        lines += balance.repeat_images(config, asked.repeat_factor)
    for line in lines:
        _say(line)


def _before(config: "Config", asked: argparse.Namespace) -> "Checkpoint | None":
    """State which checkpoint the run goes on from, or starts from, and return it, read."""
    from swin_dense.openmmlab.engine import run_folder, weights

    folder = Path(config.work_dir)
    if asked.load_from:
        config.load_from = asked.load_from
    if asked.resume:
        config.resume = True
        config.load_from = None if asked.resume == "latest" else asked.resume
    if config.get("load_from") or not config.get("resume"):
        return weights.read(config.load_from) if config.get("load_from") else None
    last = run_folder.newest(folder, _say)
    if last is None and asked.resume:
        raise InputError(
            f"--resume: {folder} holds no checkpoint to go on from. Name one with --resume PATH, "
            "or leave --resume out to start anew."
        )
    config.resume = last is not None
    config.load_from = last and str(last.path)
    if not asked.resume:
        _say(f"resume: {config.load_from or 'no checkpoint in the work dir, a new run'}")
    return last


def _seed(config: "Config", asked: int | None, before: "Checkpoint | None") -> None:
    """Set the seed: the one asked for, that of the resumed run, the config's, else 0."""
    seed = dict(config.get("randomness") or {}).get("seed") if asked is None else asked
    if config.get("resume") and before is not None:
        its = before.get("meta", {}).get("seed")
        if asked is not None and its is not None and its != asked:
            raise InputError(
                f"--seed {asked}: the run of {config.load_from} has the seed {its}, and so has "
                "what goes on from it. Leave --seed out."
            )
        seed = seed if its is None else its
    config.randomness = {**(config.get("randomness") or {}), "seed": seed or 0}


def _say(text: str) -> None:
    """Print a line, of several processes only in the first."""
    if first_process():
        print(worded(text, _PARSER))


_PARSER = _parser()
main = command(_train, _PARSER)
