"""Lay a file's weights over a model's names and shapes; nothing is loaded here.

Names that are the model's own are taken as they are. Else the layout is recognised and converted.
What is neither is matched by name, so that any model loads its own weights.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from swin_dense.checkpoints import files, layouts, ledger, resizing, suspicious, wrappers
from swin_dense.checkpoints.architecture import Architecture, registered
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.checkpoints.ledger import Ledger, Shapes
from swin_dense.errors import nearest

OWN = "the model's own names"
UNKNOWN = "no layout known, matched by name"
OUTSIDE = "outside the backbone"
EXTRA = "nothing in the model is called so"
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
    """Return what of `checkpoint` fits `model`, and the account of it.

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
    found = _recognised(shapes, checkpoint)
    state = found.state
    suspicious.refuse_suspicious(state, checkpoint.source)
    resized: list[resizing.Resized] = []
    if resizes:
        rules = [rule for known in registered() for rule in known.resized.items()]
        state, resized = resizing.resize(state, shapes, rules)

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
            elif found.bare and found.bare.is_output(name.removeprefix("backbone.")):
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
    lost = any(why in random for why in ledger.LOSSES)
    account = Ledger(
        source=checkpoint.source,
        sha256=files.sha256(checkpoint.path),
        layout=found.layout + averaged(found.average or checkpoint.average),
        part=part,
        loaded={name: shapes[name] for name in loaded},
        resized=tuple(r for r in resized if r.name in loaded),
        random=dict(sorted(random.items(), key=lambda item: item[0] not in ledger.LOSSES)),
        reshaped=reshaped,
        unused={**checkpoint.no_tensors, **found.unused}
        | {n: EXTRA for n in state if n not in shapes},
        suspicious=(*found.why_not, *suspicious.swapped_norms(loaded)),
        mismatch=_mismatch(shapes, found, checkpoint.source, part) if lost else "",
        licence=_licence(found, checkpoint.source),
    )
    return loaded, account


def _licence(found: "_Found", source: str) -> str:
    """Say under what the authors publish a file of this name; of another, what all of theirs are.

    Weights in the model's own names are somebody's own, unless the file is called as a published
    one. "" where nothing is known, or files of several licences are published.
    """
    called = Path(source).name
    for known in registered():
        for file in known.published:
            if called in (file.name, file.file):
                return f"{file.licence}, as its authors publish it"
        if known.name == found.architecture and found.layout not in (OWN, UNKNOWN):
            licences = {file.licence for file in known.published}
            if len(licences) == 1:
                return f"{licences.pop()}, if it descends from weights its authors publish"
    return ""


def averaged(word: str) -> str:
    """Return what to say behind the name of a layout of weights that lay behind this word."""
    return f", an average of the weights ({word})" if word else ""


@dataclass(frozen=True)
class _Found:
    """A file's weights under the model's names, as far as they could be told."""

    layout: str
    state: dict[str, Tensor]
    unused: dict[str, str]
    bare: Architecture | None = None  # of a bare backbone that was converted
    architecture: str = ""  # what the weights are of, "" if nothing is known
    average: str = ""
    why_not: tuple[str, ...] = ()  # why no layout was recognised


def _recognised(shapes: Shapes, checkpoint: Checkpoint) -> _Found:
    """Take the names as they are, else without wrappers, else converted, else what matches."""
    whole, weights = checkpoint["state_dict"], checkpoint.weights
    peeled = wrappers.peel(weights)
    without = {name: weights[original] for original, name in peeled.names.items()}
    candidates = [_Found(OWN, *_aligned(shapes, names)) for names in (whole, weights)]
    state, outside = _aligned(shapes, without)
    candidates.append(_Found(OWN, state, outside | peeled.dropped, average=peeled.average))
    plain = max(candidates, key=lambda candidate: _matches(shapes, candidate.state))
    complete = _matches(shapes, plain.state) == len(shapes)
    # Else another project has chosen our names, for tensors of another form.
    if complete and all(plain.state[n].dim() == len(shape) for n, shape in shapes.items()):
        return plain
    try:
        found = layouts.convert(weights)
    except layouts.UnknownWeightsError as error:
        why_not = str(error).removeprefix("checkpoint: ")
        return replace(plain, layout=UNKNOWN, architecture=error.kind, why_not=(why_not,))
    state, beyond = _aligned(shapes, found.state, bare=not found.whole)
    if _matches(shapes, plain.state) > _matches(shapes, state):
        why_not = f"the file is {found.layout}, the model has other names than ours"
        return replace(plain, layout=UNKNOWN, architecture=found.architecture, why_not=(why_not,))
    known = next(known for known in registered() if known.name == found.architecture)
    return _Found(
        layout=found.layout,
        state=state,
        unused={**found.dropped, **beyond},
        bare=None if found.whole else known,
        architecture=found.architecture,
        average=found.average,
    )


def _matches(shapes: Shapes, state: Collection[str]) -> int:
    return sum(name in state for name in shapes)


def _mismatch(shapes: Shapes, found: _Found, source: str, part: str) -> str:
    """Say that file and model are of two architectures, "" if they are not or nothing is known."""
    model = layouts.architecture_of(shapes)
    if model is None or not found.architecture or found.architecture == model.name:
        return ""
    place = "the backbone is" if part == "backbone" else f"the {part}'s backbone is"
    names = [file.name for file in model.published]
    called = Path(source).name.partition(".")[0]
    hint = nearest(called, names) or (f" For example {names[0]}." if names else "")
    layout = "" if found.layout == UNKNOWN else f" (found: {found.layout})"
    return (
        f"{source} holds weights of {found.architecture}{layout}, but {place} {model.name}. Take "
        f"weights of {model.name}, or change the backbone to {found.architecture}.{hint}"
    )


def _aligned(
    shapes: Shapes, state: Mapping[str, Tensor], bare: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give a backbone a detector's backbone, and a detector a bare backbone as its own."""
    wanted = any(not _outside(name) for name in shapes)
    if bare and wanted:
        return {f"backbone.{name}": tensor for name, tensor in state.items()}, {}
    if wanted or all(_outside(name) for name in state):
        return dict(state), {}
    inner = {n.removeprefix("backbone."): t for n, t in state.items() if not _outside(n)}
    return inner, {name: OUTSIDE for name in state if _outside(name)}


def _outside(name: str) -> bool:
    return not name.startswith("backbone.")
