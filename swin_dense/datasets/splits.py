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
    lacks gets an image of the other, where this takes no class away. Few images can make that
    impossible; the classes concerned are returned.

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
    val = _deal([len(unit) for unit in units], shown, share, random.Random(seed))
    _mend(shown, val)
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


def _mend(shown: Sequence[frozenset], val: set[int]) -> None:
    """Move units for classes that one part lacks, where that takes no class from the other."""
    counts: list[collections.Counter] = [collections.Counter(), collections.Counter()]
    for unit, found in enumerate(shown):
        counts[unit in val].update(found)
    total = counts[0] + counts[1]
    for c in sorted((c for c in total if total[c] > 1), key=lambda c: (total[c], str(c))):
        for there in (0, 1):  # the part that has all of it
            if counts[1 - there][c]:
                continue
            movable = [
                unit
                for unit, found in enumerate(shown)
                if c in found
                and (unit in val) == bool(there)
                and all(counts[there][other] > 1 for other in found)
            ]
            if movable:
                unit = min(movable, key=lambda u: len(shown[u]))
                (val.discard if there else val.add)(unit)
                counts[there].subtract(shown[unit])
                counts[1 - there].update(shown[unit])
