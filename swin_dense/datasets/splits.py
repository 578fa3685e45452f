"""Divide the images of a set in two, or take some of them: seeded, by image, classes kept in both.

A list of images is given as the classes that each shows. Images of one group (the frames of a
video, the tiles of a slide) stay together: apart, they would show a model its test.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Hashable, Iterable, Sequence

from swin_dense.errors import InputError

# How long to look for a division that has every class in both parts.
TRIES, CHOICES, AT_RANDOM = 3000, 40, 0.1
MOST_LOOKED_AT = 1000  # units that may move for the share, of a large set


@dataclasses.dataclass(frozen=True)
class Division:
    """Hold the positions of the images of each part, in their order, and what could not be kept."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    only_train: tuple[Hashable, ...] = ()  # classes of at least two units that val lacks
    only_val: tuple[Hashable, ...] = ()


def divide(
    classes: Sequence[Iterable[Hashable]],
    share: float,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Division:
    """Divide images so that each class is in both parts in about this share.

    The rarest class is dealt out first, each image to the part that lacks it most (iterative
    stratification, Sechidis, Tsoumakas and Vlahavas 2011). After that, a class that one part
    lacks gets an image of the other. Few images can make that impossible for some; these classes
    are returned.

    Args:
        classes: of each image, the classes that it shows; none for an image without objects.
        share: of the images that go to val, more than 0 and less than 1.
        groups: of each image, the name of its group; None where each is on its own.

    Raises:
        InputError: fewer than two images or groups, or a share outside of (0, 1).
    """
    if not 0 < share < 1:
        raise InputError(f"`val_share` is more than 0 and less than 1, as in 0.2; got {share:g}.")
    units = _units(len(classes), groups)
    if len(units) < 2:
        what = "images" if groups is None else "groups of images"
        raise InputError(
            f"to divide a set takes at least two {what}, it has {len(units)}. "
            + ("Add images." if groups is None else "Group them otherwise, or not at all.")
        )
    shown = [frozenset(c for i in unit for c in classes[i]) for unit in units]
    generator = random.Random(seed)
    sizes = [len(unit) for unit in units]
    val = _mend(sizes, shown, _deal(sizes, shown, share, generator), generator)
    _trim(sizes, shown, val, share)
    counts = collections.Counter(c for found in shown for c in found)
    parts: list[set] = [set(), set()]
    for unit, found in enumerate(shown):
        parts[unit in val] |= found
    several = [c for c in counts if counts[c] > 1]
    return Division(
        tuple(sorted(i for u, unit in enumerate(units) if u not in val for i in unit)),
        tuple(sorted(i for u in val for i in units[u])),
        tuple(sorted((c for c in several if c not in parts[1]), key=str)),
        tuple(sorted((c for c in several if c not in parts[0]), key=str)),
    )


def subset(classes: Sequence[Iterable[Hashable]], count: int, seed: int = 0) -> tuple[int, ...]:
    """Take `count` of the images, in their order, each class in about its share.

    Raises:
        InputError: there are fewer.
    """
    if count > len(classes):
        raise InputError(
            f"`subset` takes {count} images, the set has {len(classes)}. Ask for fewer."
        )
    if count == len(classes):
        return tuple(range(count))
    generator = random.Random(seed)
    shown = [frozenset(found) for found in classes]
    chosen = _deal([1] * len(shown), shown, count / len(shown), generator)
    ordered = sorted(chosen)
    generator.shuffle(ordered)
    others = [i for i in range(len(shown)) if i not in chosen]
    generator.shuffle(others)
    return tuple(sorted((ordered + others)[:count]))


def _units(count: int, groups: Sequence[Hashable] | None) -> list[list[int]]:
    if groups is None:
        return [[i] for i in range(count)]
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    return list(members.values())


def _deal(
    sizes: Sequence[int], shown: Sequence[frozenset], share: float, generator: random.Random
) -> set[int]:
    """Choose units of about this share of the images and of each class.

    Args:
        sizes: images in each unit.
        shown: classes of each unit.
    """
    order = list(range(len(sizes)))
    generator.shuffle(order)
    total = sum(sizes)
    # What the chosen part (1) and the other one (0) still want, in images and units of a class.
    images = [total - share * total, share * total]
    counts = collections.Counter(c for found in shown for c in found)
    wants = {}
    for c, count in counts.items():
        most = count - 1 if count > 1 else 0
        part = min(max(share * count, min(1, most)), most)
        wants[c] = [count - part, part]
    place = {unit: i for i, unit in enumerate(order)}
    holders: dict[Hashable, list[int]] = {c: [] for c in counts}
    for unit in order:
        for c in shown[unit]:
            holders[c].append(unit)
    chosen, dealt = set(), set[int]()
    rarest = sorted(counts, key=lambda c: (counts[c], min(place[u] for u in holders[c])))
    queue = [unit for c in rarest for unit in holders[c]]
    queue += [unit for unit in order if not shown[unit]]
    current = [c for c in rarest for _ in holders[c]] + [None] * (len(queue))
    for unit, c in zip(queue, current, strict=False):
        if unit in dealt:
            continue
        dealt.add(unit)
        lack = wants[c] if c is not None else images
        if abs(lack[1] - lack[0]) < 1e-9:
            lack = images
        part = int(lack[1] > lack[0])
        if part:
            chosen.add(unit)
        images[part] -= sizes[unit]
        for other in shown[unit]:
            wants[other][part] -= 1
    if not chosen:
        chosen.add(order[0])
    elif len(chosen) == len(order):
        chosen.remove(order[0])
    return chosen


def _mend(
    sizes: Sequence[int], shown: Sequence[frozenset], val: set[int], generator: random.Random
) -> set[int]:
    """Move units until no part lacks a class of two units, or for as long as that is worth it.

    A unit of a class that a part lacks moves there; the one after which the fewest classes are
    lacking, of equals the smallest; now and then any, as one alone may lead into a corner
    (Selman, Kautz and Cohen 1994). The best division that was met is returned: of equals, the
    one in which train lacks less.
    """
    counts: list[collections.Counter] = [collections.Counter(), collections.Counter()]
    holders: dict[Hashable, list[int]] = {}
    for unit, found in enumerate(shown):
        counts[unit in val].update(found)
        for c in found:
            holders.setdefault(c, []).append(unit)
    several = [c for c, units in holders.items() if len(units) > 1]
    lacking = [c for c in several if not (counts[0][c] and counts[1][c])]
    best, least = set(val), None
    for _ in range(TRIES):
        score = (len(lacking), sum(not counts[0][c] for c in lacking))
        if 0 < len(val) < len(shown) and (least is None or score < least):
            best, least = set(val), score
        if not lacking:
            break
        c = generator.choice(lacking)
        units = generator.sample(holders[c], min(len(holders[c]), CHOICES))
        if generator.random() < AT_RANDOM:
            moved = units[0]
        else:
            moved = min(units, key=lambda u: (_costs(shown[u], counts[u in val]), sizes[u]))
        here = moved in val
        (val.discard if here else val.add)(moved)
        counts[here].subtract(shown[moved])
        counts[not here].update(shown[moved])
        known = set(lacking) | {c for c in shown[moved] if len(holders[c]) > 1}
        lacking = [c for c in several if c in known and not (counts[0][c] and counts[1][c])]
    return best


def _trim(sizes: Sequence[int], shown: Sequence[frozenset], val: set[int], share: float) -> None:
    """Move units until val has its share of the images, as far as that takes no class away.

    Those go first whose classes the part has more of than its share.
    """
    counts: list[collections.Counter] = [collections.Counter(), collections.Counter()]
    for unit, found in enumerate(shown):
        counts[unit in val].update(found)
    total = counts[0] + counts[1]
    excess = sum(sizes[unit] for unit in val) - share * sum(sizes)
    here = excess > 0
    free = [unit for unit in range(len(shown)) if (unit in val) == here]
    step = max(1, len(free) // MOST_LOOKED_AT)
    left = set(free[::step])
    while left and len(val) != (1 if here else len(shown) - 1):
        able = [
            u for u in left if not _costs(shown[u], counts[here]) and sizes[u] < 2 * abs(excess)
        ]
        if not able:
            return
        part = share if here else 1 - share
        moved = max(
            able, key=lambda u: (sum(counts[here][c] - part * total[c] for c in shown[u]), -u)
        )
        left.discard(moved)
        (val.discard if here else val.add)(moved)
        counts[here].subtract(shown[moved])
        counts[not here].update(shown[moved])
        excess += -sizes[moved] if here else sizes[moved]
        if (excess > 0) != here:
            return


def _costs(found: frozenset, counts: collections.Counter) -> int:
    """Count the classes of a unit that its part has from it alone."""
    return sum(counts[c] == 1 for c in found)
