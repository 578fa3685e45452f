"""Speed as ratios: our ops against plain torch, our backbone against mmdet's.

Both sides run in turns in one process; the ratio is the median of the turns, its middle half
beside it. Absolute times are for orientation only.
"""

import argparse
import functools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import swin_dense.openmmlab  # noqa: F401  (first: it stands in for mmcv's compiled ops)
from swin_dense import benchmark, ops
from swin_dense.backbones import Swin
from swin_dense.checkpoints import files
from swin_dense.cli import options
from swin_dense.cli.command import command
from swin_dense.errors import InputError
from swin_dense.openmmlab import peers
from swin_dense.ops import extension, reference
from swin_dense.report import tables

Case = tuple[str, Callable[[], Any], Callable[[], Any]]  # name, ours, theirs


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/benchmark.py", __doc__)
    parser.add_argument("what", choices=list(CASES))
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row (4)")
    parser.add_argument("--shape", type=options.scale, default=(608, 400), metavar="LONG,SHORT")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


def _benchmark(asked: argparse.Namespace) -> None:
    if asked.what == "ops" and extension.MISSING:
        raise InputError(f"nothing to compare: {extension.describe()}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{extension.describe()}; {device}, {torch.get_num_threads()} threads")
    rows, content = [], []
    for name, ours, theirs in CASES[asked.what](device, asked.shape):
        taken = benchmark.pair(ours, theirs, asked.seconds)
        low, high = taken.spread
        milliseconds = [1000 * statistics.median(side) for side in (taken.ours, taken.theirs)]
        figures = [f"{m:.2f}" for m in milliseconds]
        rows.append([name, *figures, f"{taken.ratio:.2f}", f"{low:.2f} to {high:.2f}"])
        content.append({"name": name, "ratio": taken.ratio, "spread": [low, high]})
    other = "plain torch" if asked.what == "ops" else "mmdet"
    print(tables.grid(["", "ours ms", f"{other} ms", "times as fast", "middle half"], rows))
    print(f"peak memory of the process: {benchmark.peak_memory():.0f} MiB")
    if asked.json:
        with files.replaced(Path(asked.json)) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def _ops(device: str, shape: tuple[int, int]) -> Iterator[Case]:
    """Shapes of Mask R-CNN at 800x1216: 512 regions on a stride-4 map, 2000 and 10000 boxes."""
    torch.manual_seed(0)
    features = torch.randn(1, 256, 200, 304, device=device, requires_grad=True)
    corner = torch.rand(512, 2, device=device) * torch.tensor([900.0, 600.0], device=device)
    rois = torch.cat([torch.zeros(512, 1, device=device), corner, corner + 150], 1)

    fixed: dict[str, Any] = {
        "spatial_scale": 0.25,
        "sampling_ratio": 0,
        "take_max": False,
        "aligned": True,
    }

    def plain() -> tuple[Tensor, Tensor, Tensor]:
        return reference.roi_align(features.detach(), rois, 7, 7, **fixed)

    def plain_both_ways() -> Tensor:
        out, y, x = plain()
        images, channels, height, width = features.shape
        gradient = torch.ones_like(out)
        return reference.roi_align_backward(
            gradient, rois, y, x, images, channels, height, width, **fixed
        )

    def kernel_both_ways() -> None:
        ops.roi_align(features, rois, (7, 7), 0.25).sum().backward()
        features.grad = None

    def kernel() -> Tensor:
        return ops.roi_align(features.detach(), rois, (7, 7), 0.25)

    yield "roi_align, 512 rois, 256 channels", kernel, plain
    yield "roi_align, forward and backward", kernel_both_ways, plain_both_ways
    for count in (2000, 10000):
        start = torch.rand(count, 2, device=device) * 1000
        boxes = torch.cat([start, start + torch.rand(count, 2, device=device) * 200], 1)
        scores = torch.rand(count, device=device)
        yield (
            f"nms, {count} boxes",
            functools.partial(ops.nms, boxes, scores, 0.5),
            functools.partial(reference.nms, boxes, scores, 0.5, 0),
        )


def _backbone(device: str, shape: tuple[int, int]) -> Iterator[Case]:
    """Swin-T, batch 1, in eval mode; forward, then forward and backward."""
    torch.manual_seed(0)
    ours = Swin.from_preset("tiny").to(device).eval()
    theirs = peers.mmdet_swin_t().to(device)
    theirs.eval()  # returns None
    image = torch.randn(1, 3, shape[1], shape[0], device=device)

    def forward(model: torch.nn.Module) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                model(image)

        return call

    def both_ways(model: torch.nn.Module) -> Callable[[], None]:
        def call() -> None:
            sum(level.mean() for level in model(image)).backward()
            model.zero_grad()

        return call

    size = f"1x3x{shape[1]}x{shape[0]}"
    yield f"Swin-T forward, {size}", forward(ours), forward(theirs)
    yield f"Swin-T forward and backward, {size}", both_ways(ours), both_ways(theirs)


CASES: dict[str, Callable[[str, tuple[int, int]], Iterator[Case]]] = {
    "ops": _ops,
    "backbone": _backbone,
}
main = command(_benchmark, _parser())
