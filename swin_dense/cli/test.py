"""Evaluate a checkpoint: AP of boxes and masks, PQ or mIoU; for each class, too."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.cli.command import command, first_process, work_dir
from swin_dense.errors import InputError
from swin_dense.report import tables
from swin_dense.task import Task

if TYPE_CHECKING:
    from mmengine.config import Config

    from swin_dense.openmmlab.engine.reporting import Watch
    from swin_dense.openmmlab.engine.run import Tested


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/test.py", __doc__)
    options.add_trained(parser)
    options.add_allow_missing(parser)
    options.add_data(parser)
    parser.add_argument("--work-dir", metavar="DIR", help="log (work_dirs/<config name>/test)")
    parser.add_argument(
        "--out", metavar="FILE", help="where the numbers go (<work dir>/metrics.json)"
    )
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write a page with curves, errors and the worst images, and what compare needs",
    )
    options.add_launcher(parser)
    return parser


def _test(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files
    from swin_dense.openmmlab.engine import run, trained, weights
    from swin_dense.openmmlab.engine.reporting import Watch
    from swin_dense.openmmlab.settings import classes, places

    config, checkpoint = trained.find(
        asked.config,
        asked.checkpoint,
        asked.cfg_options,
        asked.image_scale,
        say=lambda line: print(line) if first_process() else None,
        trust_config=asked.trust_config,
    )
    name = asked.config or config.filename or checkpoint.path
    if "load_from" in (asked.cfg_options or {}):
        raise InputError(
            "load_from says what a training starts from; what is tested is the second argument. "
            "Leave load_from out."
        )
    stated = (asked.cfg_options or {}).get("work_dir")
    folder = Path(asked.work_dir or stated or f"work_dirs/{Path(name).stem}/test")
    config.work_dir, config.launcher = str(folder), asked.launcher
    out = Path(asked.out) if asked.out else folder / "metrics.json"
    files.require_place(folder, "--work-dir")
    files.require_place(out.parent, "--out")
    if asked.report:
        files.require_place(Path(asked.report), "--report")
    known = weights.class_names(checkpoint)
    found_out = places.complete_data(config, ("test",), asked.data, asked.data_root, asked.classes)
    if first_process():
        print("\n".join(found_out))
    found = tuple(config.test_dataloader.dataset.metainfo.classes)
    if known:
        segmentation = Task.of(config) is Task.SEMANTIC
        weights.require_classes(known, found, checkpoint.source, ordered=segmentation)
        if not segmentation:
            # The order the heads were trained in.
            classes.set_classes(config, known, weights.thing_names(checkpoint))

    if asked.allow_missing:
        config.allow_missing = asked.allow_missing
    started = time.perf_counter()
    with work_dir(folder):
        watch = Watch() if asked.report else None
        tested = run.test(config, checkpoint.source, watch)
    if not first_process():
        return
    print(tables.overall(tested.numbers))
    print(tables.by_class(tested.per_class))
    about = {
        "config": asked.config or config.filename,
        "checkpoint": checkpoint.source,
        "weights": tested.weights,
        "seconds": round(time.perf_counter() - started, 1),
    }
    run.write_numbers(out, tested, about)
    print(f"numbers: {out}")
    if watch:
        page = _report(asked.report, config, about, tested, watch)
        print(f"report: {page}")


def _report(
    folder: str, config: "Config", about: dict[str, Any], tested: "Tested", watch: "Watch"
) -> Path:
    """Write the page and what belongs to it; return the page."""
    from swin_dense.report import curves
    from swin_dense.report import tested as report

    shown = {name: value for name, value in about.items() if name != "weights"}
    dataset = config.test_dataloader.dataset
    shown |= {"config": Path(about["config"] or "config").stem, "task": Task.of(config).value}
    shown |= {"data": str(dataset.get("data_root") or ""), "classes": dataset.metainfo.classes}
    return report.write(
        Path(folder),
        report.Evaluation(
            shown,
            tested.numbers,
            tested.per_class,
            tested.weights,
            watch.speed,
            watch.found,
            curves.read(Path(about["checkpoint"]).parent),
        ),
    )


main = command(_test, _parser())
