"""What the numbers themselves say against a file, after its names and shapes have agreed.

Much they cannot say: tensors of equal shape that changed places between two layers look like any
others, so a shuffled file is found only where one of these signs appears.
"""

import re
from collections.abc import Iterator, Mapping
from math import log

import torch
from torch import Tensor

from swin_dense.errors import InputError

REDUCTION = re.compile(r"(?P<place>(backbone\.)?layers\.\d+\.downsample\.)reduction\.weight")
TRAINED = 1e-3  # spread of a norm's weights below which it is as it was drawn
CLEAR = 0.2  # mean logarithm; 0 means that the two orders explain the numbers equally well


def refuse_impossible(state: Mapping[str, Tensor], source: str) -> None:
    """No training that ended well leaves such values.

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


def refuse_other_merging(state: Mapping[str, Tensor], source: str) -> None:
    """Patch merging joins four tokens of C channels; some projects lay the channels outermost.

    In the authors' order, places i, i + C, i + 2C and i + 3C hold one channel of the four tokens,
    in the order of nn.Unfold places 4i to 4i + 3 do. Training makes the weights of one channel
    alike, so the order whose groups of four are more alike is the one the file was written in.

    Raises:
        InputError: the names say the authors' order, the numbers the other.
    """
    signs = [sign for name in state for sign in _signs(state, name)]
    if signs and sum(signs) / len(signs) > CLEAR:
        raise InputError(
            f"checkpoint: {source} has the authors' names, but its patch merging has its channels "
            "in the order of nn.Unfold, as OpenMMLab's Swin has: somebody renamed the tensors "
            "without reordering them, and the model would see shuffled channels. Convert the file "
            "it was made from with tools/convert.py."
        )


def swapped_norms(state: Mapping[str, Tensor]) -> Iterator[str]:
    """Norms whose weights look like biases and whose biases look like weights."""
    for name, weight in state.items():
        bias = state.get(name.removesuffix("weight") + "bias")
        if not name.endswith("weight") or weight.dim() != 1 or bias is None:
            continue
        if bias.shape == weight.shape and _positive(weight) < 0.6 and _positive(bias) > 0.99:
            yield f"{name} and its bias look as if they had changed places"


def _positive(values: Tensor) -> float:
    return float((values > 0).float().mean())


def _signs(state: Mapping[str, Tensor], name: str) -> Iterator[float]:
    """Positive where the order of nn.Unfold explains the numbers of a merging better."""
    match = REDUCTION.fullmatch(name)
    if match is None or state[name].dim() != 2 or state[name].shape[1] % 4:
        return
    reduction = state[name].float()
    norm = state.get(f"{match['place']}norm.weight")
    if norm is None or float(norm.float().std()) < TRAINED:
        return
    yield _sign(reduction.norm(dim=0))
    for end in ("weight", "bias"):
        values = state.get(f"{match['place']}norm.{end}")
        if values is not None and len(values) == reduction.shape[1]:  # V2 norms what it reduced
            yield _sign(values.float())


def _sign(values: Tensor) -> float:
    authors = values.view(4, -1).var(0).mean()
    unfold = values.view(-1, 4).var(1).mean()
    return log(float(authors + 1e-12) / float(unfold + 1e-12))
