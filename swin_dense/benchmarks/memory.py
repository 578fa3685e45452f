"""Rows about the memory of a training step, each side in a process of its own.

Run as a module it is that process: it makes one model, trains a step and prints MiB; or it runs
deformable attention both ways.
"""

import functools
import os
import subprocess
import sys

import torch

from swin_dense import ops
from swin_dense.benchmarks import backbone, deform, peers, ratios
from swin_dense.benchmarks.ratios import Case, Pair
from swin_dense.errors import InputError

ATTENTION = "ms_deform_attn"
OTHER = "mmdet"
OPTIMIZERS = {"": False, ", with AdamW": True}


def cases(device: str, shape: tuple[int, int], batch: int = 1) -> list[Case]:
    """`shape`: long and short side of the image. `batch`: images of a training step."""
    steps = [
        Case(
            f"training step{suffix}, {precision}",
            OTHER,
            functools.partial(_measure, shape, batch, autocast, optimizer),
        )
        for suffix, optimizer in OPTIMIZERS.items()
        for precision, autocast in backbone.PRECISIONS.items()
    ]
    attention = [
        Case(
            f"{ATTENTION}, {part}, forward and backward",
            deform.PUBLISHED,
            functools.partial(_measure_attention, shape, part),
        )
        for part in ("encoder", "decoder")
    ]
    return [*steps, *attention]


def _measure(
    shape: tuple[int, int], batch: int, autocast: bool, optimizer: bool, seconds: float
) -> Pair:
    peers.load(OTHER, shape[1], shape[0])  # says so when it is missing
    numbers = (batch, int(autocast), int(optimizer))
    return _pair([(name, *numbers) for name in (peers.OURS, OTHER)], shape)


def _measure_attention(shape: tuple[int, int], part: str, seconds: float) -> Pair:
    deform.published()  # says so when it is missing
    return _pair([(ATTENTION, part, side) for side in ("ours", "theirs")], shape)


def _pair(sides: list[tuple[object, ...]], shape: tuple[int, int]) -> Pair:
    """Run each side, (what to measure, its arguments), in a new process; pair what they print."""
    taken = []
    for name, *rest in sides:
        arguments = [str(x) for x in (name, *shape, *rest)]
        done = subprocess.run(
            [sys.executable, "-m", __name__, *arguments],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"measuring {name} ended with {done.returncode}:\n{done.stderr}")
        taken.append(float(done.stdout.split()[-1]))
    if min(taken) <= 0:
        raise InputError(
            f"`shape`: a step at {shape[0]}x{shape[1]} needs no more memory than was there before, "
            "so there is nothing to compare. Give a larger shape, say 608,400."
        )
    return Pair([taken[0]], [taken[1]])


def step_memory(
    name: str, shape: tuple[int, int], batch: int, autocast: bool, optimizer: bool
) -> float:
    """MiB that training adds to the peak of this process with the model built.

    One step; with an optimizer two, since the first only makes its state.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = peers.load(name, shape[1], shape[0]).to(device)
    model.train()
    image = torch.randn(batch, 3, shape[1], shape[0], device=device)
    adamw = torch.optim.AdamW(model.parameters())
    before = ratios.peak_memory()
    for _ in range(2 if optimizer else 1):
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = sum(level.float().mean() for level in model(image))
        loss.backward()
        if optimizer:
            adamw.step()
            adamw.zero_grad()
    return ratios.peak_memory() - before


def attention_memory(shape: tuple[int, int], part: str, side: str) -> float:
    """MiB that deformable attention both ways adds to the peak of this process with its inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = ops.ms_deform_attn if side == "ours" else deform.published()
    inputs = deform.attention_inputs(device, shape, part, torch.float32)
    before = ratios.peak_memory()
    deform.run(path, inputs, both_ways=True)
    return ratios.peak_memory() - before


if __name__ == "__main__":
    _name, _long, _short, *_rest = sys.argv[1:]
    _shape = (int(_long), int(_short))
    if _name == ATTENTION:
        print(attention_memory(_shape, *_rest))
    else:
        _batch, _autocast, _optimizer = map(int, _rest)
        print(step_memory(_name, _shape, _batch, bool(_autocast), bool(_optimizer)))
