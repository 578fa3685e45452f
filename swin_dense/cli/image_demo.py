"""Draw what a model finds in an image, or in each image of a folder."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swin_dense.cli import options
from swin_dense.cli.command import FAULT, command
from swin_dense.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from swin_dense.openmmlab.engine.predictor import Predictor


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("demo/image_demo.py", __doc__)
    parser.add_argument("image", help="an image, or a folder of images")
    options.add_config(parser)
    parser.add_argument("checkpoint", help="weights written by tools/train.py")
    parser.add_argument("--out-dir", default="demo_out", metavar="DIR", help="(demo_out)")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, metavar="S", help="hide weaker ones (0.3)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    parser.add_argument("--image-scale", metavar="LONG,SHORT", type=options.scale)
    return parser


def _demo(asked: argparse.Namespace) -> int:
    from PIL import Image

    from swin_dense.checkpoints import files
    from swin_dense.datasets import images
    from swin_dense.openmmlab.engine.predictor import Predictor
    from swin_dense.openmmlab.settings import config as configs
    from swin_dense.openmmlab.settings import image_sizes

    found = images.find_images(asked.image)
    config = configs.load(asked.config, asked.cfg_options)
    if asked.image_scale:
        image_sizes.scale_images(config, asked.image_scale)
    predictor = Predictor(config, asked.checkpoint, _device(asked.device))
    out = Path(asked.out_dir)
    files.require_place(out, "--out-dir")
    names = {path: _name(path, found) for path in found}
    overwritten = {(out / f"{name}.png").resolve() for name in names.values()} & {
        path.resolve() for path in found
    }
    if overwritten:
        raise InputError(
            f"--out-dir {out}: {overwritten.pop()} is an image to look at, its overlay would "
            "replace it. Choose another folder."
        )
    skipped = 0
    for path in found:
        try:
            picture, content = _look(predictor, images.read_rgb(path), asked.score_thr)
        except InputError as error:
            print(f"skipped {path.name}: {error}", file=sys.stderr)
            skipped += 1
            continue
        name = names[path]
        with files.replaced(out / f"{name}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
        with files.replaced(out / f"{name}.json") as temporary:
            row = {"image": path.name, "weights": predictor.weights, **content}
            temporary.write_text(json.dumps(row, indent=1) + "\n")
        print(f"{path.name}: {_summary(content)} -> {out / name}.png, .json")
    if skipped:
        print(f"{skipped} of {len(found)} images were skipped", file=sys.stderr)
    return FAULT if skipped else 0


def _look(
    predictor: "Predictor", rgb: "np.ndarray", threshold: float
) -> tuple["np.ndarray", dict[str, Any]]:
    """Return the overlay of one image, and what the JSON says of it."""
    import numpy as np

    from swin_dense.datasets import colours
    from swin_dense.report import pictures

    height, width = rgb.shape[:2]
    content: dict[str, Any] = {"height": height, "width": width}
    sample = predictor(rgb)
    if predictor.panoptic:
        segments, content["segments"] = predictor.segments(sample, threshold)
        content["segment_map"] = run_lengths(segments)
        palette = dict(zip(predictor.classes, colours.palette(len(predictor.classes)), strict=True))
        return pictures.segment_overlay(rgb, segments, content["segments"], palette), content
    if not predictor.segmentation:
        content["instances"] = predictor.instances(sample, threshold)
        factor = pictures.enlargement(height, width)
        large = pictures.enlarged(rgb, factor)
        return predictor.draw_instances(large, sample, threshold, factor), content
    labels = predictor.label_map(sample)
    names = predictor.classes
    counts = np.bincount(labels.ravel(), minlength=len(names))
    content["classes"] = {names[i]: int(n) for i, n in enumerate(counts) if n}
    content["label_map"] = run_lengths(labels)
    return pictures.label_overlay(rgb, labels, names, colours.palette(len(names))), content


def run_lengths(labels: "np.ndarray") -> dict[str, Any]:
    """Return, row by row, the value of each run and its length; lossless and short."""
    import numpy as np

    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    lengths = np.diff(starts, append=len(flat))
    return {"values": flat[starts].tolist(), "lengths": lengths.tolist()}


def _summary(content: dict[str, Any]) -> str:
    rows = content.get("instances", content.get("segments"))
    if rows is not None:
        names = [row["class"] for row in rows]
        return ", ".join(f"{names.count(n)} {n}" for n in dict.fromkeys(names)) or "nothing found"
    return ", ".join(content["classes"])


def _name(path: Path, found: list[Path]) -> str:
    """Return the overlay's name; a.jpg and a.png in one folder must not write the same one."""
    shared = sum(other.stem == path.stem for other in found) > 1
    return path.name.replace(".", "_") if shared else path.stem


def _device(asked: str | None) -> str:
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=asked).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device {asked} cannot be used here ({str(error).splitlines()[0]}). "
            "Leave it out to take a GPU if there is one."
        ) from error
    return asked


main = command(_demo, _parser())
