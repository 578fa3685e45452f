"""Which architecture and layout a state dict has, told by its names and shapes, never by a flag.

Wrappers and heads are taken away once, see `wrappers` and `heads`; what remains must be a bare
backbone in a layout of an architecture that is registered. Each name needs a row in the table of
the layout, and the tensors together must make a whole backbone. What that does not show: tensors of
one shape that changed places within a stage, a file cut at the very end of a block (it is a
shallower model), and numbers in another order than the names say.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from swin_dense.checkpoints import names, wrappers
from swin_dense.checkpoints.architecture import Architecture, Layout, registered
from swin_dense.checkpoints.layouts import heads, structure
from swin_dense.checkpoints.layouts.reading import Reading, read, write
from swin_dense.errors import InputError, nearest

SHOWN = 3  # problems told of a file that fits nothing


@dataclass(frozen=True)
class Converted:
    """Weights under our names."""

    layout: str  # what the file was
    architecture: str
    whole: bool  # a detector or segmentor, its backbone under "backbone."; else a bare backbone
    state: dict[str, Tensor]
    dropped: dict[str, str]  # their name -> why it has no place
    average: str = ""  # the word that tells that these weights are an average of others


class UnknownWeightsError(InputError):
    """Weights that are no whole backbone of any architecture that is registered.

    Attributes:
        kind: what they are by their names, if it is often met; else "".
    """

    kind: str = ""


def known() -> tuple[str, ...]:
    """Give the names of all layouts of bare backbones."""
    return tuple(layout.name for a in registered() for layout in a.layouts)


def convert(state: Mapping[str, Tensor]) -> Converted:
    """Recognise the layout of `state` and give its weights our names and our order.

    Raises:
        UnknownWeightsError: it is no layout known, or not a whole one.
    """
    peeled = wrappers.peel(state)
    origin = {name: original for original, name in peeled.names.items()}
    parts = heads.sort(origin)
    inner = {bare: state[origin[name]] for name, bare in parts.backbone.items()}
    names_of = {bare: origin[name] for name, bare in parts.backbone.items()}
    strangers = [f"{origin[name]} has no place" for name in parts.unknown]
    attempts: list[tuple[Reading, list[str]]] = []
    for architecture in registered():
        for layout in architecture.layouts:
            reading = read(layout, inner)
            problems = strangers + _problems(reading, architecture, names_of)
            if problems:
                attempts.append((reading, problems))
                continue
            before = heads.BACKBONE if parts.kind.whole else ""
            dropped = {_original(n, names_of): why for n, why in reading.dropped.items()}
            dropped |= {origin[n]: why for n, why in parts.dropped.items()}
            return Converted(
                layout=layout.name + parts.kind.phrase,
                architecture=architecture.name,
                whole=parts.kind.whole,
                state={before + n: t for n, t in reading.state.items()}
                | {n: state[origin[n]] for n in parts.kept},
                dropped=dropped | peeled.dropped,
                average=peeled.average,
            )
    error = UnknownWeightsError(_refusal(len(state), attempts, kind := _kind(origin)))
    error.kind = kind
    raise error


def export(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Give weights under our names the names and order of `layout`.

    Buffers that the other side computes itself are not written: load with `strict=False`.

    Args:
        state: a bare backbone, or a detector or segmentor for a layout that says so.
        layout: one of `known()`, or one that `convert` found; a phrase such as
            " in a detector" behind a name says where the backbone stands.

    Raises:
        InputError: there is no such layout, these are no whole weights of its architecture, or a
            tensor has no place in it.
    """
    architecture, chosen, kind = _chosen(layout)
    before = heads.BACKBONE if kind.whole else ""
    inner = {n.removeprefix(before): t for n, t in state.items() if n.startswith(before)}
    if problems := structure.problems(_shapes(inner), architecture):
        behind = f"behind '{before}' " if before else ""
        raise InputError(
            f"export: {layout} takes a whole {architecture.name} {behind}under our names, but "
            f"{_some(problems)}.{_better(state)}"
        )
    others = {n: t for n, t in state.items() if not n.startswith(before)}
    return {kind.prefix + n: t for n, t in write(chosen, inner).items()} | others


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Architecture | None:
    """Find the architecture whose backbone, bare or in a model, has these names and shapes."""
    inner = {
        n.removeprefix(heads.BACKBONE): s for n, s in shapes.items() if n.startswith(heads.BACKBONE)
    }
    return next((a for a in registered() if not structure.problems(inner or shapes, a)), None)


def takes_heads(layout: str) -> bool:
    """Say whether `export` takes a whole detector or segmentor for this layout.

    Raises:
        InputError: there is no such layout; with the nearest name and all there are.
    """
    return _chosen(layout)[2].whole


def _chosen(name: str) -> tuple[Architecture, Layout, heads.Kind]:
    for architecture in registered():
        for layout in architecture.layouts:
            for kind in heads.KINDS:
                if layout.name + kind.phrase == name:
                    return architecture, layout, kind
    raise InputError(
        f"export: no layout is called {name!r}.{nearest(name, known())} "
        f"Choose from: {'; '.join(known())}."
    )


def _better(state: Mapping[str, Tensor]) -> str:
    found = architecture_of(_shapes(state))
    if found is None:
        return ""
    layouts = "; ".join(layout.name for layout in found.layouts)
    return f" These are weights of {found.name}, choose from: {layouts}."


def _problems(
    reading: Reading, architecture: Architecture, names_of: Mapping[str, str]
) -> list[str]:
    """Say what keeps a reading from being right."""
    problems = [f"{_original(name, names_of)} has no place" for name in reading.unknown]
    problems += [f"no tensor is called like {mark}" for mark in reading.unmarked]
    problems += [f"two tensors are {name}" for name in reading.twice]
    problems += [
        f"of {name.rpartition('[')[0]} one of query, key and value is missing"
        for name in reading.state
        if name.endswith(names.PARTS)
    ]
    return problems or structure.problems(_shapes(reading.state), architecture)


def _original(name: str, names_of: Mapping[str, str]) -> str:
    """Give the name in the file; of a third of a tensor, with the mark of the third behind it."""
    if name in names_of:
        return names_of[name]
    return names_of[name[: -len(names.PARTS[0])]] + name[-len(names.PARTS[0]) :]


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _some(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def _kind(found: Iterable[str]) -> str:
    """Say what these weights are of, if they are often mistaken for those of an architecture."""
    found = list(found)
    for architecture in registered():
        for pattern, what in architecture.look_alikes.items():
            if any(re.fullmatch(pattern, name) for name in found):
                return what
    return ""


def _refusal(count: int, attempts: list[tuple[Reading, list[str]]], kind: str) -> str:
    """Say what was looked for, what came nearest, and what was wrong with it."""
    if not attempts:
        return "checkpoint: no architecture is registered, so no layout of weights is known."
    reading, problems = min(
        attempts, key=lambda a: (-a[0].known, len(a[0].unknown), len(a[0].unmarked), len(a[1]))
    )
    looks = f" By their names they are of {kind}." if kind else ""
    return (
        f"checkpoint: these {count} tensors are no whole backbone in any of the {len(attempts)} "
        f"layouts known.{looks} Nearest is '{reading.layout.name}', which knows {reading.known} "
        f"of them, but {_some(problems)}. Known are layouts of "
        f"{', '.join(a.name for a in registered())}."
    )
