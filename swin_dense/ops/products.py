"""Decides in which dtype a processor multiplies matrices of bfloat16.

Processors with matrix units (AMX), or with fast products of bfloat16, multiply them as they are.
Others take longer than in float32: there the factors are made float32, some thousand rows at a
time, and sums are rounded once. Which of the two a processor is no list knows,
so it is measured, once, and kept (verdicts.py): the next run on this machine computes the same.
"""

import functools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import torch

from swin_dense.ops import verdicts

SWITCH = "SWIN_DENSE_BF16_PRODUCTS"
_SIZE = (1024, 384)  # rows, channels of both factors
_CLEAR = 1.2  # times as fast, or they stay as they are
_ENTRY = "float32 against bfloat16"


@functools.cache
def in_float32() -> bool:
    """Tell whether products of bfloat16 are computed in float32 on this processor.

    SWIN_DENSE_BF16_PRODUCTS=float32 or =bfloat16 says so instead of the measurement.

    Raises:
        ValueError: it is something else.
    """
    switch = os.environ.get(SWITCH)
    if switch is not None:
        if switch not in ("float32", "bfloat16"):
            raise ValueError(
                f"{SWITCH} is 'float32' or 'bfloat16', not {switch!r}. Correct or unset it."
            )
        return switch == "float32"
    file = verdicts.path_of("products", verdicts.processor(), torch.__version__)
    ratio = verdicts.read(file).get(_ENTRY)
    if not isinstance(ratio, float):
        with ThreadPoolExecutor(1) as other:  # modes (fake tensors) belong to a thread
            ratio = other.submit(measure).result()
        verdicts.add(file, {_ENTRY: ratio})
    return ratio > _CLEAR


def measure() -> float:
    """Return how many times as fast a product is in float32 as in bfloat16: a median of turns."""
    generator = torch.Generator().manual_seed(0)
    rows, channels = _SIZE
    x = torch.randn(rows, channels, generator=generator)
    weight = torch.randn(channels, channels, generator=generator)
    sides = [(x, weight.t()), (x.bfloat16(), weight.bfloat16().t())]
    taken: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(6):
            for (a, b), times in zip(sides, taken, strict=True):
                start = time.perf_counter()
                torch.mm(a, b)
                if turn:  # the first one prepares
                    times.append(time.perf_counter() - start)
    return statistics.median(slow / fast for fast, slow in zip(*taken, strict=True))
