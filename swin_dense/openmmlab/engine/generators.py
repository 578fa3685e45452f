"""The random numbers of a process: their state in a checkpoint, and a start of their own for each
image."""

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def state() -> State:
    """Return the state of Python's, numpy's and torch's generators, of tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    found: State = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "place": int(place),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def restore(kept: Mapping[str, Any]) -> None:
    """Have the generators go on from where `state` found them."""
    python, numpy = kept["python"], kept["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["place"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(kept["torch"].cpu())
    devices = kept.get("cuda") or []
    if torch.cuda.is_available() and len(devices) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in devices])


@contextlib.contextmanager
def begun_at(*numbers: int) -> Iterator[None]:
    """Draw from generators begun at these numbers, and go on afterwards as if nothing was drawn.

    CUDA's are left alone: data is prepared on the processor.
    """
    python, numpy, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.default_generator.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torchs)
