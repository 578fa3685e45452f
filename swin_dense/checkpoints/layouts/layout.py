"""One layout: how another project names and orders the weights of a Swin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isqrt

from torch import Tensor

from swin_dense.checkpoints import names
from swin_dense.checkpoints.layouts import merging
from swin_dense.errors import InputError

V1, V2, MLP = "Swin V1", "Swin V2", "Swin-MLP"

DERIVED = "follows from the window, the model computes it"
CLASSES = "classification head"


@dataclass(frozen=True)
class Layout:
    """A table of names, and what differs in the values behind them."""

    name: str
    architecture: str
    table: dict[str, str]  # their name -> ours
    dropped: dict[str, str] = field(default_factory=dict)  # their name -> why it has no place
    marks: tuple[str, ...] = ()  # of each there must be a key
    whole: bool = False
    unfold: bool = False  # patch merging by nn.Unfold
    flat_ape: bool = True  # the absolute place embedding is (1, H * W, C), not (1, C, H, W)


@dataclass(frozen=True)
class Reading:
    """A state dict seen as one layout."""

    layout: Layout
    state: dict[str, Tensor]  # our names
    dropped: dict[str, str]
    known: int  # tensors of the backbone that have a row
    unknown: list[str]  # their names without a row
    unmarked: list[str]  # marks without a key
    twice: list[str]  # our names that two of theirs claim


def read(layout: Layout, state: Mapping[str, Tensor]) -> Reading:
    """Sort the names of `state` by the tables of `layout`, whether they fit or not."""
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    rows: list[tuple[str, str, names.Values]] = []
    pieces = names.split(state, [*layout.table, *layout.dropped])
    for name in pieces:
        if found := names.first(layout.table, name):
            rows.append((name, *found))
        elif found := names.first(layout.dropped, name):
            dropped[name] = layout.dropped[found[0]]
        else:
            unknown.append(name)
    last = max((int(v["stage"]) for _, _, v in rows if "stage" in v), default=0)
    ours: dict[str, Tensor] = {}
    twice: list[str] = []
    for name, row, values in rows:
        to = names.template(layout.table[row]).write({**values, "last": last})
        twice += [to] if to in ours else []
        ours[to] = pieces[name]
    return Reading(
        layout=layout,
        state={n: _ours(n, t, layout) for n, t in names.join(ours).items()},
        dropped=dropped,
        known=sum("{any}" not in row for _, row, _ in rows),
        unknown=unknown,
        unmarked=[m for m in layout.marks if not any(names.first([m], n) for n in state)],
        twice=twice,
    )


def write(layout: Layout, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> the names and orders of `layout`.

    Raises:
        InputError: a tensor has no place there.
    """
    back: dict[str, str] = {}
    for theirs, ours in layout.table.items():
        back.setdefault(ours, theirs)
    pieces = names.split({n: _theirs(n, t, layout) for n, t in state.items()}, back)
    rows = {name: names.first(back, name) for name in pieces}
    last = max((int(found[1].get("stage", 0)) for found in rows.values() if found), default=0)
    written: dict[str, Tensor] = {}
    homeless: list[str] = []
    for name, found in rows.items():
        if found is None or found[1].get("last", last) != last:
            homeless.append(name)
        else:
            row, values = found
            written[names.template(back[row]).write(values)] = pieces[name]
    if homeless:
        raise InputError(
            f"export: {layout.name} has no place for {len(homeless)} of {len(state)} tensors, "
            f"first {homeless[:3]}. Leave them out, or choose another layout."
        )
    return names.join(written, zeros="[k]")


def _ours(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    if layout.unfold and merging.is_merged(name, layout.architecture):
        return merging.from_unfold(tensor) if tensor.shape[-1:].numel() % 4 == 0 else tensor
    if name.endswith("absolute_pos_embed") and tensor.dim() == 3:
        side = isqrt(tensor.shape[1])
        if side**2 == tensor.shape[1]:
            return tensor.transpose(1, 2).unflatten(2, (side, side)).contiguous()
    return tensor


def _theirs(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    if layout.unfold and merging.is_merged(name, layout.architecture):
        return merging.to_unfold(tensor)
    if layout.flat_ape and name.endswith("absolute_pos_embed"):
        return tensor.flatten(2).transpose(1, 2).contiguous()
    return tensor
