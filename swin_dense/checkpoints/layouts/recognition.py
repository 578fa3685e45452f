"""Which layout a state dict has, told by its names and shapes, never by a flag.

Each name needs a row in the table of the layout, and the tensors together must make a whole
backbone. What that does not show: tensors of one shape that changed places within a stage, a file
cut at the very end of a block (it is a shallower model), and channels in another order than the
names say (`merging`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from swin_dense.checkpoints import names
from swin_dense.checkpoints.layouts import (
    authors,
    detectron2,
    foreign,
    hugging_face,
    openmmlab,
    structure,
    timm,
    torchvision,
    wholes,
)
from swin_dense.checkpoints.layouts.layout import Layout, Reading, read, write
from swin_dense.errors import InputError, nearest

# The first that fits is taken. Where two fit, both mean the same.
ALL: tuple[Layout, ...] = (
    *authors.LAYOUTS,
    *openmmlab.LAYOUTS,
    *timm.LAYOUTS,
    *torchvision.LAYOUTS,
    *hugging_face.LAYOUTS,
    *detectron2.LAYOUTS,
    *wholes.LAYOUTS,
)
LAYOUTS: tuple[str, ...] = tuple(layout.name for layout in ALL)
SHOWN = 3  # problems told of a file that fits nothing


@dataclass(frozen=True)
class Converted:
    """Weights under our names."""

    layout: str  # what the file was
    architecture: str  # "Swin V1", "Swin V2" or "Swin-MLP"
    whole: bool  # a detector or segmentor, its backbone under "backbone."; else a bare backbone
    state: dict[str, Tensor]
    dropped: dict[str, str]  # their name -> why it has no place


def convert(state: Mapping[str, Tensor]) -> Converted:
    """Recognise the layout of `state` and give its weights our names and our order.

    Raises:
        InputError: it is no layout known, or not a whole one.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    attempts: list[tuple[Reading, list[str]]] = []
    for layout in ALL:
        reading = read(layout, state)
        problems = _problems(reading)
        if not problems:
            return Converted(
                layout.name, layout.architecture, layout.whole, reading.state, reading.dropped
            )
        attempts.append((reading, problems))
    raise InputError(_refusal(state, attempts))


def export(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Our names and order -> those of `layout`, one of LAYOUTS.

    Buffers that the other side computes itself are not written: load with `strict=False`.

    Raises:
        InputError: there is no such layout, these are no whole weights of its architecture, or a
            tensor has no place in it.
    """
    if layout not in LAYOUTS:
        raise InputError(
            f"export: no layout is called {layout!r}.{nearest(layout, LAYOUTS)} "
            f"Choose from: {'; '.join(LAYOUTS)}."
        )
    chosen = ALL[LAYOUTS.index(layout)]
    if problems := _structure(chosen, state):
        behind = "behind 'backbone.' " if chosen.whole else ""
        raise InputError(
            f"export: {layout} takes a whole {chosen.architecture} {behind}under our names, but "
            f"{_some(problems)}."
        )
    return write(chosen, state)


def _problems(reading: Reading) -> list[str]:
    """What keeps a reading from being right, in words."""
    problems = [f"{name} has no place" for name in reading.unknown]
    problems += [f"no tensor is called like {mark}" for mark in reading.unmarked]
    problems += [f"two tensors are {name}" for name in reading.twice]
    problems += [
        f"of {name.rpartition('[')[0]} one of query, key and value is missing"
        for name in reading.state
        if name.endswith(names.PARTS)
    ]
    return problems or _structure(reading.layout, reading.state)


def _structure(layout: Layout, state: Mapping[str, Tensor]) -> list[str]:
    """What the backbone in `state`, under our names, lacks or has too much."""
    prefix = "backbone." if layout.whole else ""
    shapes = {
        n.removeprefix(prefix): tuple(t.shape) for n, t in state.items() if n.startswith(prefix)
    }
    return structure.problems(shapes, layout.architecture)


def _some(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def _refusal(state: Mapping[str, Tensor], attempts: list[tuple[Reading, list[str]]]) -> str:
    """What was looked for, what came nearest, and what was wrong with it."""
    reading, problems = min(
        attempts, key=lambda a: (-a[0].known, len(a[0].unknown), len(a[0].unmarked), len(a[1]))
    )
    kind = foreign.kind(state)
    looks = f" By their names they are of {kind}." if kind else ""
    return (
        f"checkpoint: these {len(state)} tensors are no whole Swin in any of the {len(ALL)} "
        f"layouts known.{looks} Nearest is '{reading.layout.name}', which knows {reading.known} "
        f"of them, but {_some(problems)}. Known are the layouts of the "
        "authors, mmdet, mmseg, mmpretrain, timm, torchvision, Hugging Face transformers, "
        "detectron2 and SimMIM."
    )
