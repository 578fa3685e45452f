"""One layout applied to the weights of a bare backbone: their names and orders to ours and back."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, equal

from swin_dense.checkpoints import names
from swin_dense.checkpoints.architecture import Layout
from swin_dense.errors import InputError


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
    shared = {name: layout.shared[name] for name in pieces if name in layout.shared}
    for name in pieces:
        if name in shared:
            continue
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
    blocks = sorted({int(values["block"]) for _, _, values in rows if "block" in values})
    for name, row in shared.items():
        for block in blocks:
            to = names.template(row).write({"block": block})
            twice += [to] if to in ours else []
            ours[to] = pieces[name]
    return Reading(
        layout=layout,
        state={n: _ours(n, t, layout) for n, t in names.join(ours, zeros=layout.zeros).items()},
        dropped=dropped,
        known=len(rows) + len(shared),
        unknown=unknown,
        unmarked=[m for m in layout.marks if not any(names.first([m], n) for n in state)],
        twice=twice,
    )


def write(layout: Layout, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give our names the names and orders of `layout`.

    Raises:
        InputError: a tensor has no place there.
    """
    back: dict[str, str] = {}
    for theirs, ours in layout.table.items():
        back.setdefault(ours, theirs)
    pieces = names.split({n: _theirs(n, t, layout) for n, t in state.items()}, back)
    common = _common(layout, pieces)
    pieces = {n: t for n, t in pieces.items() if not names.first(common, n)}
    rows = {name: names.first(back, name) for name in pieces}
    last = max((int(found[1].get("stage", 0)) for found in rows.values() if found), default=0)
    written: dict[str, Tensor] = dict(common.values())
    homeless: list[str] = []
    for name, found in rows.items():
        if layout.zeros and name.endswith(layout.zeros) and found is None:
            continue
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


def _common(layout: Layout, state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """Find what all blocks have in common: our row -> their name and the tensor."""
    found: dict[str, tuple[str, Tensor]] = {}
    for theirs, row in layout.shared.items():
        copies = [tensor for name, tensor in state.items() if names.first([row], name)]
        if copies and all(equal(copies[0], other) for other in copies):
            found.setdefault(row, (theirs, copies[0]))
    return found


def _ours(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    for order in layout.orders:
        if names.first([order.name], name):
            return order.to_ours(tensor)
    return tensor


def _theirs(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    for order in layout.orders:
        if names.first([order.name], name):
            return order.to_theirs(tensor)
    return tensor
