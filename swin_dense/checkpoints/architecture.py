"""What is known of an architecture's weights, as a table that stands beside the architecture.

An architecture's file in `backbones/` makes one `Architecture` and gives it to `register`. Nothing
else in this room speaks of any architecture by name. A table may look so:

    register(
        Architecture(
            name="Plain",
            rows=Rows(
                stem={"stem.weight": "C I P P"},
                entrance={"stages.{stage}.down.weight": "C c 2 2"},
                block={"stages.{stage}.{block}.fc.weight": "M C"},
                output={"norm{stage}.weight*": "C"},
            ),
            layouts=(Layout("official Plain", table={...}),),
        )
    )
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from swin_dense.checkpoints.names import first, template
from swin_dense.checkpoints.resizing import Resizer

CLASSES = "classification head"  # why a tensor of a file has no place in a backbone

Sizes = Mapping[tuple[int, str], int]  # stage, letter -> size


@dataclass(frozen=True)
class Order:
    """Tensors whose numbers a project lays in another order than we do."""

    name: str  # ours, as a template
    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layout:
    """How a project names and orders the weights of a bare backbone."""

    name: str  # shown to users
    table: Mapping[str, str]  # their name -> ours, see `names`
    dropped: Mapping[str, str] = field(default_factory=dict)  # their name -> why it has no place
    marks: tuple[str, ...] = ()  # of each there must be a key
    orders: tuple[Order, ...] = ()
    zeros: str = ""  # of [q], [k] and [v] the one that the project leaves out, all zeros
    # Their name -> ours with a {block}, of what all blocks have in common there.
    shared: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Our names of all tensors of a backbone, each with its shape in letters.

    C is the channels of a stage; any other capital letter is a size that all shapes of the stage
    share. A small letter is that size of the stage before, "4C" four times it, "2" a two, "_" a
    size that any tensor has for itself. What
    stands once belongs to stage 0. A "?" behind a name marks what a model may lack, then
    everywhere; a "*" what each place may lack.
    """

    stem: Mapping[str, str]  # once
    block: Mapping[str, str]  # in each {block} of each {stage}
    entrance: Mapping[str, str] = field(default_factory=dict)  # of each {stage} but the first
    output: Mapping[str, str] = field(default_factory=dict)  # norms of the maps that are given out

    def names(self) -> Iterable[str]:
        """Give every row's name without its mark."""
        for group in (self.stem, self.block, self.entrance, self.output):
            yield from (row.rstrip("?*") for row in group)


@dataclass(frozen=True)
class Published:
    """A weight file that its authors publish."""

    name: str  # what a user calls it
    url: str
    image_size: int  # pixels
    trained_on: str
    top1: float | None  # per cent on ImageNet-1K; None where the classifier knows other classes
    licence: str
    sha256: str | None = None  # None if nobody published one

    @property
    def file(self) -> str:
        """Give the file's name at its address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Architecture:
    """All that is known of the weights of one architecture.

    Attributes:
        width: gives C of a stage from C of the first and the stage's number, where it is a rule.
        check: gives what is wrong with sizes that agree with each other, in words.
        resized: end of a name -> how such a tensor is made to fit another window or image.
        suspicious: says in a sentence what the numbers under our names betray, "" if nothing.
        look_alikes: pattern of a name -> what other weights have it, if they are often mixed up.
    """

    name: str
    rows: Rows
    layouts: tuple[Layout, ...]  # the first that fits is taken
    published: tuple[Published, ...] = ()
    width: Callable[[int, int], int] | None = None
    check: Callable[[Sizes], Iterable[str]] = lambda sizes: ()
    resized: Mapping[str, Resizer] = field(default_factory=dict)
    suspicious: Callable[[Mapping[str, Tensor]], str] = lambda state: ""
    look_alikes: Mapping[str, str] = field(default_factory=dict)

    def is_output(self, name: str) -> bool:
        """Say whether `name`, one of ours, is a norm of a map that is given out."""
        return first((row.rstrip("?*") for row in self.rows.output), name) is not None


_known: dict[str, Architecture] = {}


def register(architecture: Architecture) -> None:
    """Make the weights of an architecture known to all that reads, converts and fetches files.

    Raises:
        ValueError: a name is taken, or a table speaks of a tensor that has no row.
    """
    if architecture.name in _known:
        raise ValueError(f"the weights of {architecture.name!r} are registered already")
    others = list(_known.values())
    for kind, new, taken in (
        ("layout", architecture.layouts, [x for a in others for x in a.layouts]),
        ("published file", architecture.published, [x for a in others for x in a.published]),
    ):
        names = [entry.name for entry in taken]
        for entry in new:
            if entry.name in names:
                raise ValueError(
                    f"{architecture.name}: a {kind} called {entry.name!r} is registered already"
                )
            names.append(entry.name)
    for layout in architecture.layouts:
        _require_rows(architecture, layout)
    _known[architecture.name] = architecture


def registered() -> tuple[Architecture, ...]:
    """Give all architectures in the order of their registration."""
    return tuple(_known.values())


def published() -> dict[str, Published]:
    """Give the published files of all architectures by name."""
    return {file.name: file for known in registered() for file in known.published}


def _require_rows(architecture: Architecture, layout: Layout) -> None:
    """Refuse a table whose right side is no tensor of the architecture."""
    names = (*layout.table.values(), *layout.shared.values(), *(o.name for o in layout.orders))
    for ours in set(names):
        text = re.sub(r"\[[qkv]\]$", "", ours)
        written = [
            template(text).write({"stage": 1, "last": 1, "block": 0, "end": end})
            for end in ("weight", "bias")
        ]
        if not any(first(architecture.rows.names(), name) for name in written):
            raise ValueError(f"{architecture.name}: {layout.name} names {ours}, which has no row")
