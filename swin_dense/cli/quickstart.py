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
# name -> iterations, learning rate of the fine-tuning
MODELS = {"mask_rcnn_swin_nano": (60, 2e-4), "upernet_swin_nano": (80, 2e-4)}


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
        for step in (
            f"tools/train.py {config} --data shapes --load-from {start} --max-iters {iterations} "
            f"--no-val --work-dir {work} --cfg-options optim_wrapper.optimizer.lr={rate}",
            f"tools/test.py {config} {weights} --data shapes --work-dir {work}/test",
            f"demo/image_demo.py {few} {config} {weights} --out-dir {work}/drawn",
        ):
            print(f"\n$ python {step}", flush=True)
            script, *arguments = shlex.split(step)
            status = subprocess.run([sys.executable, CHECKOUT / script, *arguments]).returncode
            if status:
                return status
        numbers = json.loads((work / "test/metrics.json").read_text())["metrics"]
        shown = [k for k in ("bbox_AP", "segm_AP", "mIoU", "mAcc") if k in numbers]
        lines.append(f"{name}: " + ", ".join(f"{k} {numbers[k]:.3f}" for k in shown))
        lines.append(f"  drawn: {(work / 'drawn').resolve()}")
    print("\n" + "\n".join(lines))
    print(f"quickstart: {time.monotonic() - started:.0f} s")
    return 0
