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
        help="an image, a folder of images, a pattern in quotes ('photos/**/*.jpg'), an http "
        "address, a video, a live stream's address, or a camera's number",
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
    return parser


def _predict(asked: argparse.Namespace) -> int:
    from swin_dense.checkpoints import files
    from swin_dense.datasets import sources
    from swin_dense.openmmlab.engine import predictor
    from swin_dense.report import parquet
    from swin_dense.report.journal import Journal

    source, out = sources.find(asked.source), Path(asked.out)
    files.require_place(out, "--out")
    if asked.format == "parquet":
        parquet.require()
    model = trained.load(asked)
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
        count, failed = _add(asked, model, source, journal)
    if asked.format == "parquet":
        with files.replaced(out / "predictions.parquet") as table:
            parquet.write(journal.path, table, model.task)
    print(f"{count} images -> {journal.path}" + (f", {failed} could not be read" * bool(failed)))
    return FAULT if failed else 0


def _add(
    asked: argparse.Namespace, model: Any, source: "Source", journal: "Journal"
) -> tuple[int, int]:
    """Look at what is not done yet; returns how many images there were and could not be read."""
    failed = 0

    def skip(picture: "Picture", error: InputError) -> None:
        nonlocal failed
        failed += 1
        journal.add(picture.name, {"error": str(error)})
        print(f"skipped {picture.name}: {error}", file=sys.stderr)

    results = model.stream(
        _left(source, journal.done, asked.every),
        asked.score_thr,
        batch=asked.batch_size,
        class_agnostic=asked.class_agnostic,
        mirror=asked.mirror,
        skip=skip,
    )
    found, left = 0, source.count and -(-source.count // asked.every) - len(journal.done)
    with (
        contextlib.closing(results),
        progress(left if left and left > 0 else None) as tell,
    ):
        for found, result in enumerate(results, start=1):
            row = result.to_json()
            if result.seconds is not None:
                row = {"seconds": round(result.seconds, 3), **row}
            if asked.draw:
                row["drawn"] = _draw(result, Path(asked.out), journal)
            journal.add(result.name, row)
            tell(found + failed)
    return found + failed, failed


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


def _draw(result: Any, out: Path, journal: "Journal") -> str:
    """Write the picture of a result; returns its place in the folder."""
    from PIL import Image

    from swin_dense.checkpoints import files

    stem = Path(result.name).name.replace(".", "_").replace("#", "_")[:100] or "image"
    names = itertools.chain([stem], (f"{stem}_{i}" for i in itertools.count(2)))
    name = next(place for each in names if (place := f"drawn/{each}.png") not in journal.drawn)
    journal.drawn.add(name)
    (out / "drawn").mkdir(exist_ok=True)
    with files.replaced(out / name) as temporary:
        Image.fromarray(result.draw()).save(temporary, format="PNG")
    return name


main = command(_predict, _parser())
