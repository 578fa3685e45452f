"""Fine-tune, evaluate and draw two small models on built-in data.

Each step is a command a user could type; it is printed before it runs. It takes minutes, and the
small weights of demo/weights, which a checkout of the project has.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
OUT = Path("work_dirs/quickstart")
SHAPES = ("--data", "shapes")
# name -> iterations, learning rate of the fine-tuning
MODELS = {"mask_rcnn_swin_nano": (120, 1e-4), "upernet_swin_nano": (240, 3e-4)}


def _quickstart(_: argparse.Namespace) -> int:
    """Run every step; return the status of the first that fails, else 0."""
    started = time.monotonic()
    if not (CHECKOUT / "demo/weights").is_dir():
        raise InputError(
            f"there is no {CHECKOUT / 'demo/weights'}: the weights that quickstart starts from are "
            "in a checkout of the project, not in an installed package. Run tools/quickstart.py "
            "there, or train without them: swin-dense train mask_rcnn_swin_nano --data shapes."
        )
    from swin_dense.datasets import shapes

    pictures = shapes.write(Path("data/shapes")).image_dir("val")
    few = OUT / "images"
    few.mkdir(parents=True, exist_ok=True)
    for image in sorted(pictures.iterdir())[:8]:
        (few / image.name).write_bytes(image.read_bytes())

    lines = []
    for name in MODELS:
        work = OUT / name
        for tool, *words in _steps(name, work, few):
            path = os.path.relpath(CHECKOUT / str(tool))
            print(f"\n$ python {shlex.join([path, *map(str, words)])}", flush=True)
            status = subprocess.run([sys.executable, path, *map(str, words)]).returncode
            if status:
                return status
        numbers = json.loads((work / "test/metrics.json").read_text())["metrics"]
        shown = [k for k in ("bbox_AP", "segm_AP", "mIoU", "mAcc") if k in numbers]
        lines.append(f"{name}: " + ", ".join(f"{k} {numbers[k]:.3f}" for k in shown))
        lines.append(f"  drawn: {(work / 'drawn').resolve()}")
    print("\n" + "\n".join(lines))
    print(f"quickstart: {time.monotonic() - started:.0f} s")
    return 0


def _steps(name: str, work: Path, images: Path) -> list[list[object]]:
    """Return the commands of one model: a file of the checkout, then its arguments."""
    iterations, rate = MODELS[name]
    start = os.path.relpath(CHECKOUT / f"demo/weights/{name}.safetensors")
    weights = work / f"iter_{iterations}.pth"
    rule = f"optim_wrapper.optimizer.lr={rate}"
    length = ["--max-iters", iterations, "--no-val", "--cfg-options", rule]
    return [
        ["tools/train.py", name, "--load-from", start, *SHAPES, "--work-dir", work, *length],
        ["tools/test.py", name, weights, *SHAPES, "--work-dir", work / "test"],
        ["demo/image_demo.py", images, name, weights, "--out-dir", work / "drawn"],
    ]


main = command(_quickstart, options.parser("tools/quickstart.py", __doc__))
