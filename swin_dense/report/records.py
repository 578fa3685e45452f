"""What was matched in each image: enough to compute every number again, over other images.

One file for a run, `records.npz`, arrays only. Letters: I images, K classes, N detections, T IoU
thresholds, A ranges of object areas, B resamples. A resample is a weight for each image, how often
it was drawn; weights of 1 give the numbers of the run itself.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from swin_dense.errors import InputError, MissingInputError

FILE = "records.npz"
AREAS = {"all": "", "small": "_small", "medium": "_medium", "large": "_large"}
RECALLS = np.linspace(0.0, 1.0, 101)
FULL = 1 << 16  # cells of a block of resamples times detections


@dataclass
class Objects:
    """Matches of boxes or of masks.

    Attributes:
        kind: "bbox" or "segm".
        classes: K names, in the order of the labels.
        images: I names; `truth` has a digest of the objects in each.
        thresholds: (T,) of IoU.
        areas: A names of ranges, the first of all areas.
        most: detections of an image and class that count, of each recall number, ascending.
        image, label, rank, score: (N,) of each detection; rank counts within image and class.
        hit, ignored: (A, T, N) bool.
        objects: (A, M, 3) of image, label and how many objects count in that area.
    """

    family: ClassVar[str] = "objects"
    kind: str
    classes: tuple[str, ...]
    images: tuple[str, ...]
    truth: tuple[str, ...]
    thresholds: np.ndarray
    areas: tuple[str, ...]
    most: tuple[int, ...]
    image: np.ndarray
    label: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    hit: np.ndarray
    ignored: np.ndarray
    objects: list[np.ndarray] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return the names of the numbers that `numbers` gives, then those of the classes."""
        over = [
            f"{name}{threshold}" for name, threshold in (("AP", ""), ("AP", "50"), ("AP", "75"))
        ]
        over += [f"AP{AREAS[a]}" for a in self.areas[1:]]
        over += [f"AR_{most}" for most in self.most]
        over += [f"AR{AREAS[a]}" for a in self.areas[1:]]
        return [f"{self.kind}_{name}" for name in over]

    def numbers(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute AP and AR of resamples as COCO does; nan where no object is of the kind.

        Args:
            weights: (B, I) whole numbers.

        Returns:
            (B, 12) in the order of `names`, and (B, K) the AP of each class.
        """
        precision, recall = [], []
        for area in range(len(self.areas)):
            ap, ar = self._area(area, weights, self.most if area == 0 else self.most[-1:])
            precision.append(ap)
            recall.append(ar)
        at = {round(float(t), 2): i for i, t in enumerate(self.thresholds)}
        whole = precision[0]
        missing = np.full(len(weights), np.nan)
        columns = [_mean(whole, (1, 2))]
        columns += [_mean(whole[:, :, at[t]], 1) if t in at else missing for t in (0.5, 0.75)]
        columns += [_mean(part, (1, 2)) for part in precision[1:]]
        columns += [_mean(recall[0][i], (1, 2)) for i in range(len(self.most))]
        columns += [_mean(part[0], (1, 2)) for part in recall[1:]]
        return np.stack(columns, 1), _mean(whole, 2)

    def _area(
        self, area: int, weights: np.ndarray, most: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute AP (B, K, T) and, for each of `most`, AR (L, B, K, T)."""
        shape = len(weights), len(self.classes), len(self.thresholds)
        ap, ar = np.full(shape, np.nan), np.full((len(most), *shape), np.nan)
        counted = self.objects[area]
        for k in range(len(self.classes)):
            rows = counted[counted[:, 1] == k]
            if not len(rows):
                continue
            truth = weights[:, rows[:, 0]] @ rows[:, 2]  # (B,)
            there = np.flatnonzero(truth)
            mine = self._of_class(k)
            mine = mine[~self.ignored[area][:, mine].all(0)]  # of another size, mostly
            step = max(1, FULL * 64 // max(1, len(mine)))
            for start in range(0, len(there), step):
                part = there[start : start + step]
                drawn = weights[part][:, self.image[mine]]
                seen = drawn.cumsum(1)
                needed = _needed(RECALLS, truth[part])  # (B, 101) hits
                for t in range(len(self.thresholds)):
                    ap[part, k, t] = self._precision(area, t, mine, drawn, seen, needed)
                    hit = self._hits(area, t, mine)
                    for i, limit in enumerate(most):
                        few = hit[self.rank[mine[hit]] < limit]
                        ar[i, part, k, t] = drawn[:, few].sum(1) / truth[part]
        return ap, ar

    def _of_class(self, k: int) -> np.ndarray:
        """Return the detections of a class, the surest first; equal ones in the order of images."""
        mine = np.flatnonzero(self.label == k)
        return mine[np.argsort(-self.score[mine], kind="stable")]

    def _hits(self, area: int, t: int, mine: np.ndarray) -> np.ndarray:
        return np.flatnonzero(self.hit[area, t, mine] & ~self.ignored[area, t, mine])

    def _precision(
        self,
        area: int,
        t: int,
        mine: np.ndarray,
        drawn: np.ndarray,
        seen: np.ndarray,
        needed: np.ndarray,
    ) -> np.ndarray:
        """Average the precision at COCO's 101 recalls: (B,).

        Only hits raise the recall, so the precision is asked for at these alone.
        """
        hit = self._hits(area, t, mine)
        if not len(hit):
            return np.zeros(len(drawn))
        found = drawn[:, hit].cumsum(1)  # (B, H)
        passed = np.flatnonzero(self.ignored[area, t, mine])
        beside = np.concatenate([np.zeros((len(drawn), 1), int), drawn[:, passed].cumsum(1)], 1)
        total = seen[:, hit] - beside[:, np.searchsorted(passed, hit)]
        precision = found / (total + np.spacing(1))
        best = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        # All rows at once: each one's counts lie above those of the row before.
        lift = np.arange(len(drawn))[:, None] * (max(found[:, -1].max(), needed.max()) + 1)
        place = np.searchsorted((found + lift).ravel(), (needed + lift).ravel())
        place = place.reshape(needed.shape) - np.arange(len(drawn))[:, None] * len(hit)
        reached = needed <= found[:, -1:]
        values = np.take_along_axis(best, np.minimum(place, len(hit) - 1), 1)
        return np.where(reached, values, 0.0).mean(1)

    def best_score(self) -> float:
        """Return the score from which on hits and false ones together give the best F1 at IoU 0.5.

        1 where nothing was found rightly.
        """
        order = np.argsort(-self.score, kind="stable")
        order = order[~self.ignored[0, 0, order]]
        hits = self.hit[0, 0, order].cumsum()
        if not len(order) or not hits[-1]:
            return 1.0
        f1 = 2 * hits / (np.arange(1, len(order) + 1) + self.objects[0][:, 2].sum())
        return float(self.score[order[f1.argmax()]])

    def by_image(self, least: float) -> np.ndarray:
        """Count at IoU 0.5, among detections of at least this score: (I, 3) hits, false, missed."""
        counts = np.zeros((len(self.images), 3), int)
        sure = (self.score >= least) & ~self.ignored[0, 0]
        hit = self.hit[0, 0]
        np.add.at(counts[:, 0], self.image[sure & hit], 1)
        np.add.at(counts[:, 1], self.image[sure & ~hit], 1)
        np.add.at(counts[:, 2], self.objects[0][:, 0], self.objects[0][:, 2])
        counts[:, 2] -= counts[:, 0]
        return counts

    def image_scores(self) -> np.ndarray:
        """Return F1 of each image, in percent, at the run's own best score: (I,)."""
        hits, false, missed = self.by_image(self.best_score()).T
        whole = 2 * hits + false + missed
        return np.where(whole > 0, 200 * hits / np.maximum(whole, 1), 100.0)


@dataclass
class Pixels:
    """Pixels of each class in each image: shared, found and true, all (I, K) int64."""

    family: ClassVar[str] = "pixels"
    classes: tuple[str, ...]
    images: tuple[str, ...]
    shared: np.ndarray
    found: np.ndarray
    true: np.ndarray
    kind: str = ""

    @property
    def truth(self) -> tuple[str, ...]:
        """Return a digest of the truth of each image: how many pixels of each class it has."""
        return tuple(_digest(row) for row in self.true)

    def names(self) -> list[str]:
        """Return the names of the numbers that `numbers` gives."""
        return ["aAcc", "mIoU", "mAcc"]

    def numbers(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute aAcc, mIoU and mAcc in percent, (B, 3), and the IoU of each class (B, K)."""
        shared, found, true = (weights @ part for part in (self.shared, self.found, self.true))
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = 100 * shared / (found + true - shared)
            accuracy = 100 * shared / true
            whole = 100 * shared.sum(1) / true.sum(1)
        return np.stack([whole, _mean(iou, 1), _mean(accuracy, 1)], 1), iou

    def image_scores(self) -> np.ndarray:
        """Return the mean IoU of each image in percent, over the classes in it: (I,)."""
        return self.numbers(np.eye(len(self.images), dtype=np.int64))[0][:, 1]


@dataclass
class Segments:
    """Segments of each class in each image, (I, K, 4): sum of IoU, hits, false and missed ones."""

    family: ClassVar[str] = "segments"
    classes: tuple[str, ...]
    images: tuple[str, ...]
    counts: np.ndarray
    thing: np.ndarray
    kind: str = ""

    @property
    def truth(self) -> tuple[str, ...]:
        """Return a digest of the truth of each image: how many segments of each class it has."""
        return tuple(_digest(row[:, 1] + row[:, 3]) for row in self.counts)

    def names(self) -> list[str]:
        """Return the names of the numbers that `numbers` gives."""
        return [f"{name}{group}" for group in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]

    def numbers(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute PQ, SQ and RQ in percent of all, things and stuff, (B, 9), and PQ (B, K)."""
        total = np.einsum("bi,ikc->bkc", weights.astype(float), self.counts)
        overlap, hits, false, missed = np.moveaxis(total, 2, 0)
        seen = hits + false + missed > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            quality = np.where(seen, np.where(hits > 0, 100 * overlap / hits, 0.0), np.nan)
            recognition = np.where(seen, 100 * hits / (hits + (false + missed) / 2), np.nan)
        whole = quality * recognition / 100
        columns = []
        for group in (np.ones_like(self.thing), self.thing, ~self.thing):
            columns += [_mean(part[:, group], 1) for part in (whole, quality, recognition)]
        return np.stack(columns, 1), whole

    def image_scores(self) -> np.ndarray:
        """Return the PQ of each image in percent, over the classes in it: (I,)."""
        return np.concatenate(
            [self.numbers(row[None])[0][:, 0] for row in np.eye(len(self.images), dtype=int)]
        )


Records = Objects | Pixels | Segments


def write(folder: Path, records: Sequence[Records]) -> Path:
    """Write the records of a run into one file."""
    arrays: dict[str, np.ndarray] = {}
    parts = []
    for number, one in enumerate(records):
        plain: dict[str, Any] = {"family": one.family}
        for name, value in vars(one).items():
            if isinstance(value, np.ndarray):
                arrays[f"{number}.{name}"] = value
            elif name == "objects":
                for area, rows in enumerate(value):
                    arrays[f"{number}.objects.{area}"] = rows
            else:
                plain[name] = value
        parts.append(plain)
    path = folder / FILE
    about = np.frombuffer(json.dumps(parts).encode(), np.uint8)
    every: dict[str, Any] = {"about": about, **arrays}
    np.savez_compressed(path, **every)
    return path


def read(folder: Path) -> list[Records]:
    """Read the records of a run.

    Raises:
        InputError: the folder has none, or another program wrote them.
    """
    path = folder / FILE
    if not path.is_file():
        raise MissingInputError(
            f"{folder} holds no {FILE}, what was matched in each image. An evaluation writes it "
            "beside its report."
        )
    kinds: dict[str, Any] = {kind.family: kind for kind in (Objects, Pixels, Segments)}
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        parts = json.loads(arrays.pop("about").tobytes())
        found: list[Records] = []
        for number, plain in enumerate(parts):
            kind = kinds[plain.pop("family")]
            values: dict[str, Any] = {
                n: tuple(v) if isinstance(v, list) else v for n, v in plain.items()
            }
            start = f"{number}."
            own = {n.removeprefix(start): v for n, v in arrays.items() if n.startswith(start)}
            lists = sorted(n for n in own if n.startswith("objects."))
            if lists:
                values["objects"] = [own.pop(name) for name in lists]
            found.append(kind(**values, **own))
        return found
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path} is not what an evaluation writes, or only part of it ({error}). Evaluate once "
            "more with a report."
        ) from error


def _needed(recalls: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how many hits reach each recall, exactly as COCO's comparison of fractions has it."""
    needed = np.ceil(recalls * truth[:, None]).astype(np.int64)
    below = (needed - 1) / truth[:, None] >= recalls
    needed = needed - below
    return needed + (needed / truth[:, None] < recalls)


def _mean(values: np.ndarray, axis: Any) -> np.ndarray:
    """Average what is there; nan where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _digest(row: np.ndarray) -> str:
    return hashlib.sha1(np.ascontiguousarray(row, np.float64).tobytes()).hexdigest()[:16]
