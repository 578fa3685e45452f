"""Numbers that betray a file after its names and shapes have agreed.

Much they cannot say: tensors of equal shape that changed places between two layers look like any
others, so a shuffled file is found only where one of these signs appears.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints import architecture
from swin_dense.errors import InputError


def refuse_impossible(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse values that no training leaves which ended well.

    Raises:
        InputError: numbers that are none, or a negative variance.
    """
    broken = [
        n for n, t in state.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())
    ]
    if broken:
        raise InputError(
            f"checkpoint: {source} holds values that are no numbers (NaN or infinite) in "
            f"{len(broken)} of {len(state)} tensors, first {broken[0]}. Its training failed or the "
            "file is damaged: take an earlier checkpoint."
        )
    negative = [n for n, t in state.items() if n.endswith("running_var") and bool((t < 0).any())]
    if negative:
        raise InputError(
            f"checkpoint: {source} has negative variances in {len(negative)} batch norms, first "
            f"{negative[0]}. The file is damaged or its names were mixed up: get it anew."
        )


def refuse_suspicious(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights under our names whose numbers speak against their names.

    Raises:
        InputError: an architecture finds such a sign, see `Architecture.suspicious`.
    """
    bare = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    checks = dict.fromkeys(known.suspicious for known in architecture.registered())
    for check in checks:
        if sign := check(bare):
            raise InputError(f"checkpoint: {source} {sign}")


def swapped_norms(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield a sentence for each norm whose weights look like biases and its biases like weights."""
    for name, weight in state.items():
        bias = state.get(name.removesuffix("weight") + "bias")
        if not name.endswith("weight") or weight.dim() != 1 or bias is None:
            continue
        if bias.shape == weight.shape and _positive(weight) < 0.6 and _positive(bias) > 0.99:
            yield f"{name} and its bias look as if they had changed places"


def _positive(values: Tensor) -> float:
    return float((values > 0).float().mean())
