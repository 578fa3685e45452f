"""Words that training and packing put before the names of weights.

    module.  _orig_mod.                  DistributedDataParallel, torch.compile
    _fsdp_wrapped_module.  ...           stand anywhere in a name
    model.  student.  timm_model.  ...   the attribute of the class around the network
    teacher.  ema.  ...                  an average of the weights
    backbone.                            the network's place in a detector

They come in any order and more than once. They are peeled here, once for every architecture.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

MACHINERY = ("module", "_orig_mod")
INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AROUND = ("model", "timm_model", "network", "net", "student")
AVERAGES = ("teacher", "ema", "model_ema", "ema_model", "averaged_model")
BACKBONE = "backbone"

# Keys of a file under which the weights lie, the weights themselves before their averages.
KEYS = ("state_dict", "model", "student", "network", "net")
AVERAGE_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "teacher")
ALL_KEYS = KEYS + AVERAGE_KEYS

BESIDE = "an average, beside the weights themselves"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Peeled:
    """Names of a file without wrappers, those of the backbone behind one "backbone."."""

    names: dict[str, str]  # the file's name -> without wrappers
    dropped: dict[str, str]  # the file's name -> why it is not read
    average: str  # the word that tells that these weights are an average, "" if they are not


def without_machinery(state: Mapping[str, Value]) -> dict[str, Value]:
    """Give `state` without the words of distributed, compiled and sharded training."""
    names = {name: ".".join(_inside(_front(name, MACHINERY)[1])) for name in state}
    unique = _unique(names)
    return {unique[name]: value for name, value in state.items()}


def peel(names: Iterable[str]) -> Peeled:
    """Take all wrappers from `names`.

    Averages are read only where the weights themselves are not there too. Two names that would
    become one stay as they are.
    """
    names = list(names)
    plain: dict[str, str] = {}
    averaged: dict[str, str] = {}
    word = ""
    for name in names:
        front, rest = _front(name, (*MACHINERY, *INSIDE, *AROUND, *AVERAGES, BACKBONE))
        peeled = ".".join([BACKBONE] * (BACKBONE in front) + _inside(rest))
        if found := next((w for w in front if w in AVERAGES), ""):
            word = word or found
            averaged[name] = peeled
        else:
            plain[name] = peeled
    if set(plain.values()) & set(averaged.values()):
        return Peeled(_unique(plain), dict.fromkeys(averaged, BESIDE), "")
    every = plain | averaged
    return Peeled(_unique({name: every[name] for name in names}), {}, word)


def _front(name: str, wrappers: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split a name into the wrappers it begins with and the rest, which is never empty."""
    words = name.split(".")
    wrappers, count = set(wrappers), 0
    while count < len(words) - 1 and words[count] in wrappers:
        count += 1
    return words[:count], words[count:]


def _inside(words: list[str]) -> list[str]:
    return [word for word in words if word not in INSIDE] or words


def _unique(names: Mapping[str, str]) -> dict[str, str]:
    """Keep a name as it is where two would become one."""
    counts: dict[str, int] = {}
    for peeled in names.values():
        counts[peeled] = counts.get(peeled, 0) + 1
    return {name: peeled if counts[peeled] == 1 else name for name, peeled in names.items()}
