"""Rows about the whole backbone: Swin-T, in evaluation mode.

Beside other projects' models of the same sizes and runtimes of exported models, version 2 beside
version 1, and beside itself at a larger image.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn

from swin_dense.benchmarks import peers, ratios, runtimes
from swin_dense.benchmarks.ratios import Case, LeftOutError, Pair

SIDES = (512, 2048)  # of the square images that growth is measured between
WAYS = {"forward": False, "forward and backward": True}  # name -> with gradients
PRECISIONS = {"fp32": False, "bf16 autocast": True}  # name -> under autocast
COMPILED = ", compiled"


def cases(
    device: str, shape: tuple[int, int], compiled: bool = False, batch: int = 1
) -> list[Case]:
    """Return the rows.

    Args:
        shape: long and short side of the image, in pixels.
        compiled: whether there are rows about torch.compile too.
        batch: images at a time.
    """
    width, height = shape

    @functools.cache
    def model(name: str) -> nn.Module:
        plain = name.removesuffix(COMPILED)
        loaded = peers.load(plain, height, width).to(device)
        loaded.eval()  # mmdet's returns None
        if plain != name:
            loaded.compile()
        return loaded

    def measure(which: str, against: str, both_ways: bool, autocast: bool, seconds: float) -> Pair:
        image = torch.randn(batch, 3, height, width, device=device)
        ours, theirs = (
            functools.partial(run, model(name), image, both_ways, autocast)
            for name in (which, against)
        )
        if against.endswith(COMPILED):
            _compile(against, theirs)
        return ratios.pair(ours, theirs, seconds)

    others = list(peers.PEERS)
    if compiled:
        others += [f"{name}{COMPILED}" for name in (peers.OURS, "timm")]
    pairs = [("", peers.OURS, other) for other in others]
    version_2 = peers.VERSION_2
    pairs.append((f"{version_2}, ", version_2, peers.VERSION_1))

    def measure_runtime(name: str, precision: str, seconds: float) -> Pair:
        image = torch.randn(batch, 3, height, width, device=device)
        theirs = runtimes.load(name, image, precision)
        ours = functools.partial(run, model(peers.OURS), image, False, PRECISIONS[precision])
        return ratios.pair(ours, theirs, seconds)

    with_runtimes = [
        Case(f"forward, {precision}", name, functools.partial(measure_runtime, name, precision))
        for name, precisions in runtimes.PRECISIONS.items()
        for precision in precisions
    ]
    return with_runtimes + [
        Case(
            f"{prefix}{way}, {precision}",
            other,
            functools.partial(measure, which, other, both_ways, autocast),
        )
        for prefix, which, other in pairs
        for precision, autocast in PRECISIONS.items()
        for way, both_ways in WAYS.items()
    ]


def growth(device: str, shape: tuple[int, int]) -> list[Case]:
    """Ours at two sizes of image; `shape` plays no part."""

    def measure(both_ways: bool, seconds: float) -> Pair:
        model = peers.load(peers.OURS, *SIDES).to(device).eval()
        images = (torch.randn(1, 3, side, side, device=device) for side in SIDES)
        small, large = (functools.partial(run, model, i, both_ways, False) for i in images)
        return ratios.pair(small, large, seconds)

    small, large = (f"{side}x{side}" for side in SIDES)
    return [
        Case(f"{way}, fp32, {small}", large, functools.partial(measure, both_ways))
        for way, both_ways in WAYS.items()
    ]


def run(model: nn.Module, image: torch.Tensor, both_ways: bool, autocast: bool) -> None:
    """Once through the model, or there and back."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=autocast):
        if not both_ways:
            with torch.inference_mode():
                model(image)
            return
        loss = sum(level.float().mean() for level in model(image))
    loss.backward()
    model.zero_grad()


def _compile(name: str, side: Callable[[], None]) -> None:
    try:
        side()
    except RuntimeError as error:  # what dynamo and inductor raise are such
        reason = str(error).strip().splitlines()[0]
        raise LeftOutError(f"{name}: torch.compile fails ({reason}), left out") from error
