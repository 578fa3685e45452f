"""Compare two runs over the same images: what differs, and by how much it would by chance.

The images are drawn anew with replacement, the same ones for both runs; the interval of a
difference is what 95 of 100 such draws give (Efron, "Bootstrap Methods", 1979). Of several runs on
a side, which differ in their seed alone, the means are compared, and each draw also moves by what
other seeds would give: Student's t with the spread within both sides (Student, 1908).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_dense.errors import InputError
from swin_dense.report import records, tables

INTERVAL = 95.0  # percent
AT_ONCE = 50  # resamples computed together
MOST_CHANGED = 10  # images
SHOWN = 3  # names in a message


def compare(
    first: Sequence[records.Records],
    second: Sequence[records.Records],
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare what was matched in two runs; see `compare_sides`."""
    return compare_sides([first], [second], resamples, seed)


def compare_sides(
    first: Sequence[Sequence[records.Records]],
    second: Sequence[Sequence[records.Records]],
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Compare what was matched in the runs of two sides.

    Args:
        first, second: runs, each with its records; those of a side differ in their seed alone.

    Returns:
        for each kind: "numbers" and "classes", rows with name, first, second, difference, low,
        high and real (the interval excludes 0); "runs" of each side; and "images", those that
        changed most.

    Raises:
        InputError: the runs are not of the same task, images, classes or truth.
    """
    runs = [*first, *second]
    kinds = [[(one.family, one.kind) for one in run] for run in runs]
    for place, found in enumerate(kinds):
        if found != kinds[0]:
            told = [", ".join(" ".join(kind).strip() for kind in k) for k in (kinds[0], found)]
            named = "the second" if len(runs) == 2 else f"run {place + 1}"
            raise InputError(
                f"the runs do not judge the same: {told[0] or 'nothing'} in the first, "
                f"{told[1] or 'nothing'} in {named}. Compare evaluations of one task with the "
                "same metrics."
            )
    compared = []
    for every in zip(*runs, strict=True):
        for other in every[1:]:
            require_same(every[0], other)
        compared.append(_compared(every[: len(first)], every[len(first) :], resamples, seed))
    return compared


def require_same(one: records.Records, other: records.Records) -> None:
    """Check that two runs were judged on the same classes, images and truth.

    Raises:
        InputError: they were not; which ones differ.
    """
    if one.classes != other.classes:
        lost = [name for name in one.classes if name not in other.classes]
        new = [name for name in other.classes if name not in one.classes]
        told = f"only in the first: {_some(lost)}; only in the second: {_some(new)}"
        if not lost and not new:
            told = "the same names in another order"
        raise InputError(
            f"the runs have different classes ({told}). Compare runs of the same ones."
        )
    lost = sorted(set(one.images) - set(other.images))
    new = sorted(set(other.images) - set(one.images))
    if lost or new:
        raise InputError(
            f"the runs have different images: {len(lost)} only in the first ({_some(lost)}), "
            f"{len(new)} only in the second ({_some(new)}). Evaluate both on the same split."
        )
    if len(set(one.images)) < len(one.images):
        raise InputError("two images have the same name, so that the runs cannot be matched.")
    truths = dict(zip(other.images, other.truth, strict=True))
    changed = [n for n, t in zip(one.images, one.truth, strict=True) if truths[n] != t]
    if changed:
        raise InputError(
            f"the truth differs in {len(changed)} of {len(one.images)} images ({_some(changed)}): "
            "the annotations were changed between the runs. Evaluate both on the same ones."
        )


def _compared(
    first: Sequence[records.Records],
    second: Sequence[records.Records],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    one, count = first[0], len(first[0].images)
    # A run may have seen the images in another order; its numbers say how often each of its own
    # images was drawn.
    place = {name: i for i, name in enumerate(one.images)}
    orders = [[np.array([place[n] for n in run.images], int) for run in s] for s in (first, second)]

    def means(weights: np.ndarray) -> list[list[np.ndarray]]:
        """Return numbers and numbers of classes, of each side: every run's, (runs, R, N)."""
        sides = []
        for side, known in zip((first, second), orders, strict=True):
            found = [r.numbers(weights[:, o]) for r, o in zip(side, known, strict=True)]
            sides.append([np.stack(parts) for parts in zip(*found, strict=True)])
        return [list(parts) for parts in zip(*sides, strict=True)]

    whole = means(np.ones((1, count), int))
    random = np.random.default_rng(seed)
    drawn: list[list[np.ndarray]] = [[], []]
    for start in range(0, resamples, AT_ONCE):
        some = min(AT_ONCE, resamples - start)
        weights = random.multinomial(count, np.full(count, 1 / count), size=some)
        for kept, (a, b) in zip(drawn, means(weights), strict=True):
            kept.append(b.mean(0) - a.mean(0))
    spread = [
        np.concatenate(parts) + _of_seeds(sides[0], sides[1], resamples, random)
        for parts, sides in zip(drawn, whole, strict=True)
    ]
    numbers, classes = ([side.mean(0) for side in sides] for sides in whole)
    return {
        "kind": one.kind,
        "task": one.family,
        "count": count,
        "runs": [len(first), len(second)],
        "resamples": resamples,
        "numbers": _rows(one.names(), numbers, spread[0]),
        "classes": _rows(list(one.classes), classes, spread[1]),
        "images": _changed(one, second[0], orders[1][0]),
    }


def _of_seeds(
    first: np.ndarray, second: np.ndarray, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """Draw what other seeds would add to a difference of means, (R, N); 0 if nothing is known.

    Args:
        first, second: numbers of each run over all images, (runs, 1, N).
    """
    free = len(first) + len(second) - 2
    if not free:
        return np.zeros((resamples, first.shape[-1]))
    squares = sum(((side - side.mean(0)) ** 2).sum(0) for side in (first, second))
    error = np.sqrt(squares / free * (1 / len(first) + 1 / len(second)))
    return random.standard_t(free, (resamples, 1)) * error


def _rows(
    names: Sequence[str], values: Sequence[np.ndarray], spread: np.ndarray
) -> list[dict[str, Any]]:
    rows = []
    for i, name in enumerate(names):
        first, second = (float(part[0, i]) for part in values)
        if first != first or second != second:
            continue
        own = spread[:, i][~np.isnan(spread[:, i])]
        outside = (100 - INTERVAL) / 2
        low, high = np.percentile(own, [outside, 100 - outside]) if len(own) else (np.nan,) * 2
        rows.append(
            {
                "name": name,
                "first": first,
                "second": second,
                "difference": second - first,
                "low": float(low),
                "high": float(high),
                "real": bool(low > 0 or high < 0),
            }
        )
    return rows


def _changed(
    one: records.Records, other: records.Records, order: np.ndarray
) -> list[dict[str, Any]]:
    before = one.image_scores()
    after = np.empty_like(before)
    after[order] = other.image_scores()
    change = np.nan_to_num(after - before)
    most = np.argsort(-np.abs(change), kind="stable")[:MOST_CHANGED]
    return [
        {"image": one.images[i], "first": float(before[i]), "second": float(after[i])}
        for i in most
        if change[i]
    ]


def told(compared: Sequence[dict[str, Any]]) -> str:
    """Return tables and sentences for a person."""
    parts = []
    for one in compared:
        title = {"bbox": "boxes", "segm": "masks"}.get(one["kind"], one["kind"] or one["task"])
        digits = 3 if one["task"] == "objects" else 2
        parts.append(
            f"{title}: {one['count']} images, {one['resamples']} resamples, "
            f"{INTERVAL:g} % intervals of the difference{_of_runs(one['runs'])}"
        )
        parts.append(_table("number", one["numbers"], digits))
        real = [row for row in one["classes"] if row["real"]]
        if len(one["classes"]) > 1:
            parts.append(_sentence_of_classes(one["classes"], real))
            if real:
                real.sort(key=lambda row: -abs(row["difference"]))
                parts.append(_table("class", real, digits))
        parts.append(sentence(one["numbers"][0], digits, sum(one["runs"]) > 2))
        if one["images"]:
            score = {"objects": "F1", "pixels": "mIoU", "segments": "PQ"}[one["task"]]
            rows = [
                [row["image"], f"{row['first']:.1f}", f"{row['second']:.1f}"]
                for row in one["images"]
            ]
            parts.append(f"images that changed most ({score} in percent)")
            parts.append(tables.grid(["image", "first", "second"], rows))
    return "\n\n".join(parts)


def _of_runs(runs: Sequence[int]) -> str:
    if sum(runs) > 2:
        return f", means of {runs[0]} and {runs[1]} runs"
    return (
        "\n(one run a side: what another seed would give is not in the intervals; several runs "
        "of a side, with commas between, put it in)"
    )


def sentence(row: dict[str, Any], digits: int = 3, seeds: bool = False) -> str:
    """Say whether a difference means anything.

    Args:
        seeds: whether the interval holds what other seeds would give, too.
    """
    chance = "the choice of images and seeds" if seeds else "the choice of images"
    if row["difference"] == row["low"] == row["high"] == 0:
        return f"{row['name']} is the same in both runs, over whichever images."
    amount = f"{row['difference']:+.{digits}f}"
    interval = f"[{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]"
    if row["real"]:
        better = "higher" if row["difference"] > 0 else "lower"
        return (
            f"{row['name']} is {better} in the second run by more than {chance} "
            f"explains: {amount}, interval {interval} excludes 0."
        )
    return (
        f"{row['name']}: no difference shown. {amount} may come from {chance}: "
        f"interval {interval} holds 0."
    )


def _sentence_of_classes(every: Sequence[Any], real: Sequence[Any]) -> str:
    by_chance = len(every) * (100 - INTERVAL) / 100
    return (
        f"{len(real)} of {len(every)} classes differ (interval excludes 0); about "
        f"{by_chance:.0f} would by chance alone."
    )


def _table(name: str, rows: Sequence[dict[str, Any]], digits: int) -> str:
    lines = [
        [row["name"], f"{row['first']:.{digits}f}", f"{row['second']:.{digits}f}"]
        + [f"{row[key]:+.{digits}f}" for key in ("difference", "low", "high")]
        + ["yes" if row["real"] else "no"]
        for row in rows
    ]
    header = [name, "first", "second", "difference", "low", "high", "real"]
    return tables.grid(header, lines)


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return (", ".join(names[:SHOWN]) or "none") + (f" and {more} more" if more > 0 else "")
