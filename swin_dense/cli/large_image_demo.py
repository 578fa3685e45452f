"""Write what a model finds in an image too large to be held whole."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from swin_dense.cli import options, trained
from swin_dense.cli.command import command
from swin_dense.cli.progress import progress
from swin_dense.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("demo/large_image_demo.py", __doc__)
    parser.add_argument("image", help="an image: TIFF, BigTIFF, PNG, JPEG, ...")
    trained.add(parser)
    parser.add_argument(
        "--out", default="large_out", metavar="DIR", help="where results go (large_out)"
    )
    parser.add_argument(
        "--tile",
        type=options.positive,
        metavar="N",
        help="side of the squares looked at, in pixels (the one the image scale leaves as it is)",
    )
    parser.add_argument(
        "--overlap",
        type=options.positive,
        metavar="N",
        help="pixels that neighbours share; as large as objects, as a rule (a quarter of the tile)",
    )
    parser.add_argument(
        "--batch-size", type=options.positive, default=1, metavar="N", help="tiles at once (1)"
    )
    parser.add_argument(
        "--level",
        type=int,
        default=0,
        metavar="N",
        help="of a TIFF with a pyramid (0, the largest)",
    )
    parser.add_argument(
        "--most-pixels",
        type=options.positive,
        metavar="N",
        help="refuse larger images (2.5e9; 0.6e9 of files that are decoded as a whole)",
    )
    return parser


def _demo(asked: argparse.Namespace) -> None:
    from swin_dense.checkpoints import files
    from swin_dense.datasets import large_images
    from swin_dense.openmmlab.engine import grid, large
    from swin_dense.task import Task

    out = Path(asked.out)
    files.require_place(out, "--out")
    large_images.open_image(asked.image, asked.level, asked.most_pixels).close()
    if asked.tile is not None:
        grid.lay((1, 1), asked.tile, asked.tile // 4 if asked.overlap is None else asked.overlap)
    model = trained.load(asked)
    target = out / "labels.tif"
    if target.exists() and target.samefile(asked.image):
        raise InputError(f"--out {out}: the result would replace the image. Choose another folder.")
    with progress(None, "tiles") as tell:
        result = large.predict(
            model,
            asked.image,
            asked.score_thr,
            tile=asked.tile,
            overlap=asked.overlap,
            batch=asked.batch_size,
            level=asked.level,
            most_pixels=asked.most_pixels,
            label_map=target if model.task is Task.SEMANTIC else None,
            tell=tell,
            note=lambda text: print(f"note: {text}", file=sys.stderr),
        )
    print(f"{asked.image}: {result}")
    for path in _write(result, model, out):
        print(f"-> {path}")


def _write(result: Any, model: Any, out: Path) -> list[Path]:
    """Write an overview, and the result as JSON; objects as GeoJSON too."""
    from PIL import Image

    from swin_dense.checkpoints import files
    from swin_dense.report.results import LabelMap

    written = [out / "overview.png", out / "result.json"]
    with files.replaced(written[0]) as temporary:
        Image.fromarray(result.draw()).save(temporary, format="PNG")
    about = {"image": result.name, "weights": model.weights}
    if isinstance(result, LabelMap):
        height, width = result.size
        areas = {row.name: row.area for row in result}
        about |= {"height": height, "width": width, "classes": areas, "label_map": "labels.tif"}
        written.append(out / "labels.tif")
    else:
        about |= result.to_json()
        written.append(out / "objects.geojson")
        with files.replaced(written[-1]) as temporary:
            text = json.dumps(result.to_geojson(), ensure_ascii=False)
            temporary.write_text(text + "\n", "utf-8")
    with files.replaced(written[1]) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False) + "\n", "utf-8")
    return written


main = command(_demo, _parser())
