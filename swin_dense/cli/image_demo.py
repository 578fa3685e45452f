"""Draw what a model finds in an image, or in each image of a folder."""

import argparse
import json
import sys
from pathlib import Path

from swin_dense.cli import options, trained
from swin_dense.cli.command import FAULT, command
from swin_dense.errors import InputError


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("demo/image_demo.py", __doc__)
    parser.add_argument("image", help="an image, or a folder of images")
    trained.add(parser)
    parser.add_argument("--out-dir", default="demo_out", metavar="DIR", help="(demo_out)")
    return parser


def _demo(asked: argparse.Namespace) -> int:
    from PIL import Image

    from swin_dense.checkpoints import files
    from swin_dense.datasets import images

    found = images.find_images(asked.image)
    out = Path(asked.out_dir)
    names = _places(found, out)
    model = trained.load(asked)
    skipped = 0
    for path in found:
        try:
            result = model.predict(path, asked.score_thr)
        except InputError as error:
            print(f"skipped {path.name}: {error}", file=sys.stderr)
            skipped += 1
            continue
        name = names[path]
        with files.replaced(out / f"{name}.png") as temporary:
            Image.fromarray(result.draw()).save(temporary, format="PNG")
        with files.replaced(out / f"{name}.json") as temporary:
            row = {"image": path.name, "weights": model.weights, **result.to_json()}
            temporary.write_text(json.dumps(row, indent=1) + "\n")
        print(f"{path.name}: {result} -> {out / name}.png, .json")
    if skipped:
        print(f"{skipped} of {len(found)} images were skipped", file=sys.stderr)
    return FAULT if skipped else 0


def _places(found: list[Path], out: Path) -> dict[Path, str]:
    """Name what is written for each image; a.jpg and a.png in one folder must not be one.

    Raises:
        InputError: nothing can be written to `out`, or an image would be replaced.
    """
    from swin_dense.checkpoints import files

    files.require_place(out, "--out-dir")
    stems = [path.stem for path in found]
    names = {
        path: path.name.replace(".", "_") if stems.count(path.stem) > 1 else path.stem
        for path in found
    }
    overwritten = {(out / f"{name}.png").resolve() for name in names.values()} & {
        path.resolve() for path in found
    }
    if overwritten:
        raise InputError(
            f"--out-dir {out}: {overwritten.pop()} is an image to look at, its overlay would "
            "replace it. Choose another folder."
        )
    return names


main = command(_demo, _parser())
