"""Lay a file's weights over a model's names and shapes; nothing is loaded here.

Names that are the model's own are taken as they are. Else the layout is recognised and converted.
What is neither is matched by name, so that models that are no Swin load too.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from swin_dense.checkpoints import files, layouts, ledger, resizing, suspicious
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.checkpoints.ledger import Ledger, Shapes
from swin_dense.errors import InputError

OWN = "the model's own names"
UNKNOWN = "no layout known, matched by name"
OUTSIDE = "outside the backbone"
EXTRA = "nothing in the model is called so"
OUTPUT_NORM = re.compile(r"(backbone\.)?norm\d+\.(weight|bias)")
COUNTER = re.compile(r"(.*\.)?num_batches_tracked")


def fit(
    model: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    *,
    part: str = "model",
    resizes: bool = True,
    allowed: Sequence[str] = (),
    class_layers: Callable[[], Collection[str]] = tuple,
    other_classes: bool = False,
) -> tuple[dict[str, Tensor], Ledger]:
    """What of `checkpoint` fits `model`, and the account of it.

    Args:
        model: its state dict.
        part: what the model is, in a word.
        resizes: whether position tables of another window are resized, as for training on.
        allowed: patterns of names that may stay at random, see `ledger.require_meaning`.
        class_layers: gives the names whose shape follows from the classes; asked where it matters.
        other_classes: the file was trained for other classes, so those layers start anew.

    Raises:
        InputError: the file holds values that no training leaves.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.items()}
    free = ledger.allowed(shapes, allowed)
    suspicious.refuse_impossible(checkpoint.weights, checkpoint.source)
    try:
        layout, bare, state, unused = _recognised(shapes, checkpoint.weights)
        why_not: tuple[str, ...] = ()
    except _UnknownError as error:
        layout, bare, (state, unused) = UNKNOWN, False, _aligned(shapes, checkpoint.weights)
        why_not = (str(error),)
    suspicious.refuse_other_merging(state, checkpoint.source)
    resized: list[resizing.Resized] = []
    if resizes:
        state, resized = resizing.resize(state, shapes)

    reshaped = {
        n: tuple(state[n].shape) for n, s in shapes.items() if n in state and state[n].shape != s
    }
    of_classes = set(class_layers()) if reshaped or other_classes else set()
    loaded: dict[str, Tensor] = {}
    random: dict[str, Shapes] = {}
    for name, shape in shapes.items():
        why = None
        if name not in state:
            why = ledger.ABSENT
            if COUNTER.fullmatch(name):
                why = ledger.COUNTERS
            elif bare and OUTPUT_NORM.fullmatch(name):
                why = ledger.NORMS
        elif name in of_classes and (other_classes or name in reshaped):
            why = ledger.CLASSES
        elif name in reshaped:
            why = ledger.RESHAPED
        if why is None:
            loaded[name] = state[name]
            continue
        why = ledger.ALLOWED if why in ledger.LOSSES and name in free else why
        random.setdefault(why, {})[name] = shape
    account = Ledger(
        source=checkpoint.source,
        sha256=files.sha256(checkpoint.path),
        layout=layout,
        part=part,
        loaded={name: shapes[name] for name in loaded},
        resized=tuple(r for r in resized if r.name in loaded),
        random=dict(sorted(random.items(), key=lambda item: item[0] not in ledger.LOSSES)),
        reshaped=reshaped,
        unused={**checkpoint.no_tensors, **unused, **{n: EXTRA for n in state if n not in shapes}},
        suspicious=(*why_not, *suspicious.swapped_norms(loaded)),
    )
    return loaded, account


class _UnknownError(Exception):
    """The names are neither the model's nor those of a layout known; the text says why."""


def _recognised(
    shapes: Shapes, state: dict[str, Tensor]
) -> tuple[str, bool, dict[str, Tensor], dict[str, str]]:
    """Layout, whether it is one of bare backbones, weights under the model's names, the others.

    Raises:
        _UnknownError: there is nothing for it but the names as they are.
    """
    if all(name in state for name in shapes):
        return OWN, False, state, {}
    plain, outside = _aligned(shapes, state)
    if all(name in plain for name in shapes):
        return OWN, False, plain, outside
    try:
        found = layouts.convert(state)
    except InputError as error:
        raise _UnknownError(str(error).removeprefix("checkpoint: ")) from error
    converted, beyond = _aligned(shapes, found.state, bare=not found.whole)
    if sum(n in shapes for n in plain) > sum(n in shapes for n in converted):
        raise _UnknownError(f"the file is {found.layout}, the model has other names than ours")
    return found.layout, not found.whole, converted, {**found.dropped, **beyond}


def _aligned(
    shapes: Shapes, state: dict[str, Tensor], bare: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A backbone gets a detector's backbone, a detector gets a bare backbone as its own."""
    wanted = any(not _outside(name) for name in shapes)
    if bare and wanted:
        return {f"backbone.{name}": tensor for name, tensor in state.items()}, {}
    if wanted or all(_outside(name) for name in state):
        return state, {}
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if not _outside(n)}
    return inner, {name: OUTSIDE for name in state if _outside(name)}


def _outside(name: str) -> bool:
    return not name.startswith("backbone.")
