"""From nothing to pictures in minutes: fine-tune, evaluate and draw two small models on shapes.

Each step is a command a user could type; it is printed before it runs.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from swin_dense.datasets import shapes

CHECKOUT = Path(__file__).resolve().parents[2]
OUT = Path("work_dirs/quickstart")
SHAPES = ("--data", "shapes")
# name -> iterations, learning rate of the fine-tuning
MODELS = {"mask_rcnn_swin_nano": (120, 1e-4), "upernet_swin_nano": (240, 3e-4)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every step, takes no arguments; the status of the first that fails, else 0."""
    if arguments:
        print("quickstart takes no arguments", file=sys.stderr)
        return 2
    started = time.monotonic()
    pictures = shapes.write(Path("data/shapes")).image_dir("val")
    few = OUT / "images"
    few.mkdir(parents=True, exist_ok=True)
    for image in sorted(pictures.iterdir())[:8]:
        (few / image.name).write_bytes(image.read_bytes())

    lines = []
    for name, (iterations, rate) in MODELS.items():
        config, work = CHECKOUT / f"configs/{name}.py", OUT / name
        start = CHECKOUT / f"demo/weights/{name}.safetensors"
        weights = work / f"iter_{iterations}.pth"
        rule = f"optim_wrapper.optimizer.lr={rate}"
        length = ["--max-iters", iterations, "--no-val", "--cfg-options", rule]
        steps: list[list[object]] = [
            ["tools/train.py", config, "--load-from", start, *SHAPES, "--work-dir", work, *length],
            ["tools/test.py", config, weights, *SHAPES, "--work-dir", work / "test"],
            ["demo/image_demo.py", few, config, weights, "--out-dir", work / "drawn"],
        ]
        for step in steps:
            tool, *words = map(str, step)
            print(f"\n$ python {shlex.join([tool, *words])}", flush=True)
            status = subprocess.run([sys.executable, CHECKOUT / tool, *words]).returncode
            if status:
                return status
        numbers = json.loads((work / "test/metrics.json").read_text())["metrics"]
        shown = [k for k in ("bbox_AP", "segm_AP", "mIoU", "mAcc") if k in numbers]
        lines.append(f"{name}: " + ", ".join(f"{k} {numbers[k]:.3f}" for k in shown))
        lines.append(f"  drawn: {(work / 'drawn').resolve()}")
    print("\n" + "\n".join(lines))
    print(f"quickstart: {time.monotonic() - started:.0f} s")
    return 0
