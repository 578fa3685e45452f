"""Write what a model finds in images of any source, a JSON line for each."""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options, trained
from swin_dense.cli.command import FAULT, command
from swin_dense.cli.progress import progress
from swin_dense.errors import InputError

if TYPE_CHECKING:
    from swin_dense.datasets.sources import Picture, Source
    from swin_dense.report.journal import Journal

HOW = ("class_agnostic", "mirror", "precision", "draw")  # decides what is written


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/predict.py", __doc__)
    parser.add_argument(
        "source",
        help="an image, a folder of images, a pattern in quotes ('photos/**/*.jpg'), a Parquet "
        "table of images, an http address, a video, a live stream's address, or a camera's number",
    )
    trained.add(parser)
    parser.add_argument(
        "--out", default="predictions", metavar="DIR", help="where results go (predictions)"
    )
    parser.add_argument("--draw", action="store_true", help="write a picture of each result too")
    parser.add_argument(
        "--format",
        choices=["jsonl", "parquet"],
        default="jsonl",
        help="parquet: a table too, when all images are done (needs pyarrow)",
    )
    parser.add_argument(
        "--class-agnostic",
        action="store_true",
        help="of objects that cover one another keep the surest, also where classes differ",
    )
    parser.add_argument(
        "--tta",
        dest="mirror",
        action="store_true",
        help="look at each image's mirror image too and join what is found: twice the time",
    )
    parser.add_argument(
        "--every", type=options.positive, default=1, metavar="N", help="look at each N-th one (1)"
    )
    parser.add_argument(
        "--batch-size",
        type=options.positive,
        default=1,
        metavar="N",
        help="images at once, as far as neighbours have one size (1)",
    )
    parser.add_argument(
        "--engine",
        choices=["plain", "ray"],
        default="plain",
        help="ray: several processes that each hold the model, on all machines of a cluster",
    )
    parser.add_argument(
        "--workers",
        type=options.positive,
        metavar="N",
        help="of ray: processes (one for each GPU; without GPUs one for each four processors)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of ray: a cluster that runs, auto for that of this machine (one is started here)",
    )
    return parser


def _predict(asked: argparse.Namespace) -> int:
    from swin_dense.checkpoints import files
    from swin_dense.datasets import sources
    from swin_dense.datasets.image_tables import require_pyarrow
    from swin_dense.openmmlab.engine import predictor, ray_workers
    from swin_dense.report import parquet
    from swin_dense.report.journal import Journal

    with_ray = asked.engine == "ray"
    if with_ray:
        ray_workers.require()
    elif asked.workers or asked.ray_address:
        raise InputError("--workers and --ray-address say how --engine ray runs: add it.")
    source, out = sources.find(asked.source), Path(asked.out)
    files.require_place(out, "--out")
    if asked.format == "parquet":
        require_pyarrow()
    # Beside workers it only answers what it is: their cards are theirs.
    here = {"device": "cpu"} if with_ray else {}
    model = trained.load(argparse.Namespace(**vars(asked) | here))
    about = {
        **{f"weights {key}": value for key, value in model.weights.items() if key != "file"},
        **{key: getattr(asked, key) for key in HOW},
        "score_thr": predictor.SCORE if asked.score_thr is None else asked.score_thr,
        "image_scale": asked.image_scale and list(asked.image_scale),
        "options": {key: str(value) for key, value in (asked.cfg_options or {}).items()},
    }
    with Journal(out, about) as journal:
        if journal.done:
            print(f"{out}: {len(journal.done)} images are done already, the others follow")
        look = _look_with_workers if with_ray else _look
        count, failed = look(asked, model, source, journal)
    if asked.format == "parquet":
        with files.replaced(out / "predictions.parquet") as table:
            parquet.write(journal.path, table, model.task)
    print(f"{count} images -> {journal.path}" + (f", {failed} could not be read" * bool(failed)))
    return FAULT if failed else 0


def _look(
    asked: argparse.Namespace, model: Any, source: "Source", journal: "Journal"
) -> tuple[int, int]:
    """Look at what is not done yet; returns how many images there were and could not be read."""
    from swin_dense.report import pictures
    from swin_dense.report.journal import row_of

    failed = 0

    def skip(picture: "Picture", error: InputError) -> None:
        nonlocal failed
        failed += 1
        _add(journal, picture.name, {"error": str(error)}, None)

    number = _number_left(source, journal, asked.every)
    results = model.stream(_left(source, journal.done, asked.every), **_looking(asked), skip=skip)
    found = 0
    with contextlib.closing(results), progress(number) as tell:
        for found, result in enumerate(results, start=1):
            drawing = pictures.png(result.draw()) if asked.draw else None
            _add(journal, result.name, row_of(result), drawing)
            tell(found + failed)
    return found + failed, failed


def _look_with_workers(
    asked: argparse.Namespace, model: Any, source: "Source", journal: "Journal"
) -> tuple[int, int]:
    """Have Ray's workers look; else as `_look`."""
    from swin_dense.openmmlab.engine import ray_workers

    looking = _looking(asked)
    model.stream([], **looking)  # refuses what the model cannot do
    files = {"config": asked.config, "weights": asked.checkpoint}
    look = ray_workers.Look(
        {**files, **trained.how(asked)}, model.weights["sha256"], looking, asked.draw
    )
    number = _number_left(source, journal, asked.every)
    left = _left(source, journal.done, asked.every)
    results = ray_workers.stream(left, look, asked.workers, asked.ray_address, _say)
    count = failed = 0
    with contextlib.closing(results), progress(number) as tell:
        for count, found in enumerate(results, start=1):
            failed += "error" in found.row
            _add(journal, found.name, found.row, found.drawing)
            tell(count)
    return count, failed


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _looking(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what `Predictor.stream` is told."""
    return {
        "score": asked.score_thr,
        "batch": asked.batch_size,
        "class_agnostic": asked.class_agnostic,
        "mirror": asked.mirror,
    }


def _add(journal: "Journal", name: str, row: dict[str, Any], drawing: bytes | None) -> None:
    if "error" in row:
        _say(f"skipped {name}: {row['error']}")
    journal.add(name, {**row, "drawn": _write(drawing, name, journal)} if drawing else row)


def _number_left(source: "Source", journal: "Journal", every: int) -> int | None:
    left = source.count and -(-source.count // every) - len(journal.done)
    return left if left and left > 0 else None


def _left(source: "Source", done: set[str], every: int) -> "Source":
    """Leave out what was looked at, and what a list names twice."""
    from swin_dense.datasets.sources import Source

    def pictures() -> Iterator["Picture"]:
        seen = set(done)
        for place, picture in enumerate(source):
            if (place % every == 0 or picture.error) and picture.name not in seen:
                seen.add(picture.name)
                yield picture

    return Source(pictures, source.count)


def _write(drawing: bytes, image: str, journal: "Journal") -> str:
    """Write the picture of a result; returns its place in the folder."""
    from swin_dense.checkpoints import files

    out = journal.path.parent
    stem = Path(image).name.replace(".", "_").replace("#", "_")[:100] or "image"
    names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2)))
    name = next(place for each in names if (place := f"drawn/{each}.png") not in journal.drawn)
    journal.drawn.add(name)
    (out / "drawn").mkdir(exist_ok=True)
    with files.replaced(out / name) as temporary:
        temporary.write_bytes(drawing)
    return name


main = command(_predict, _parser())
