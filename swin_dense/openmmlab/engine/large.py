"""Look at an image tile by tile, in bounded memory, and give one result of the whole.

Held are: the rows of one row of tiles, the tiles of a batch, the objects found (masks in the boxes
of their pixels) or the probabilities that the next tiles will add to, and a picture of at most
`OVERVIEW` pixels a side. `datasets/large_images.py` says which kinds of files take more.
"""

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from swin_dense.checkpoints import files
from swin_dense.datasets import large_images
from swin_dense.datasets.large_images import LargeImage
from swin_dense.datasets.sources import Picture, Source
from swin_dense.errors import InputError
from swin_dense.openmmlab.engine import grid as grids
from swin_dense.openmmlab.engine.blending import Blend, kind_of_labels
from swin_dense.openmmlab.engine.grid import Grid
from swin_dense.openmmlab.engine.seams import Found, Seams
from swin_dense.openmmlab.settings import image_sizes, sections
from swin_dense.report.masks import Crop, Masks
from swin_dense.report.results import Instances, LabelMap
from swin_dense.task import Task

if TYPE_CHECKING:
    from swin_dense.openmmlab.engine.predictor import Predictor

OVERVIEW = 2000  # pixels of the longer side
TILE = 1024  # where the config states no scale
Tell = Callable[[int, int], None]


def predict(
    model: "Predictor",
    path: str | Path,
    score: float | None = None,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    batch: int = 1,
    level: int = 0,
    most_pixels: float | None = None,
    label_map: str | Path | None = None,
    tell: Tell | None = None,
    note: Callable[[str], None] | None = None,
) -> Instances | LabelMap:
    """Find what is in a large image; see `Predictor.predict_large`.

    Args:
        tile: side of a tile in pixels; if None, that which the config's scale leaves as it is.
        overlap: pixels that neighbouring tiles share at least; a quarter of the tile if None.
        batch: tiles that are computed at once.
        level: of a pyramid (TIFF); 0 is the largest. Everything is in pixels of that level.
        most_pixels: refuse larger images; see `large_images.open_image`.
        label_map: a TIFF to which a label map is written as it grows, instead of held in memory;
            it lies where the image does, if that is a GeoTIFF.
        tell: is called with the number of tiles that are done, and that of all.
        note: is told that tiles had as many objects as the config allows; a warning if None.

    Raises:
        InputError: see `Predictor.predict_large`.
    """
    least = model.least(score)
    if model.task is Task.PANOPTIC:
        raise InputError(
            "large images: this model gives segments that share out all pixels, and those of tiles "
            "cannot be joined. Take a model that finds instances, or one that gives a label map; "
            "or shrink the image and use `predict`."
        )
    if label_map is not None and model.task is not Task.SEMANTIC:
        raise InputError("`label_map`: this model finds objects and gives none. Leave it out.")
    tile = usual_tile(model.config) if tile is None else tile
    overlap = tile // 4 if overlap is None and isinstance(tile, int) else overlap
    grids.lay((1, 1), tile, overlap)  # what is wrong with them is said before a file is opened
    image = large_images.open_image(path, level, most_pixels)
    with contextlib.closing(image):
        grid = grids.lay(image.size, tile, overlap)
        look = _Look(model, image, grid, batch, tell)
        if model.task is Task.SEMANTIC:
            return look.label_map(None if label_map is None else Path(label_map))
        return look.instances(least, note or _warn)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def usual_tile(config: Config) -> int:
    """Return the side of the square that the config's scale leaves as it is."""
    scale = image_sizes.test_scale(config)
    return min(scale) if scale else TILE


class _Look:
    """One image, looked at by one model."""

    def __init__(
        self, model: "Predictor", image: LargeImage, grid: Grid, batch: int, tell: Tell | None
    ) -> None:
        self.model, self.image, self.grid = model, image, grid
        self.tell = tell or (lambda done, count: None)
        self.overview = _Overview(image.size)
        self.samples = model.samples(Source(self._pictures, len(grid)), batch)

    def instances(self, least: float, note: Callable[[str], None]) -> Instances:
        """Return the objects of the image, the surest first."""
        model, size = self.model, self.image.size
        seams, with_masks = Seams(self.grid), False
        full, limit = 0, _most_objects(model.config)
        for (i, j), rgb, samples in self._tiles():
            found: Any = model.result(samples, rgb, least)
            full += limit is not None and len(found) >= limit
            with_masks |= found.masks is not None
            seams.add((i, j), _moved(found, self.grid.rows[i], self.grid.columns[j]))
        if full:
            note(
                f"{full} of {len(self.grid)} tiles have {limit} objects, the most that the config "
                "lets a tile have (max_per_img): there may be more. Raise it, or take smaller "
                "tiles."
            )
        rows = seams.joined()
        return Instances(
            **self._about(),
            boxes=np.array([row.box for row in rows], np.float32).reshape(-1, 4),
            scores=np.array([row.score for row in rows], np.float32),
            labels=np.array([row.label for row in rows], np.int64),
            masks=Masks(size, [row.mask for row in rows if row.mask]) if with_masks else None,
        )

    def label_map(self, path: Path | None) -> LabelMap:
        """Return the class of each pixel; in a memory map if it is written to a file."""
        kind = kind_of_labels(len(self.model.classes))
        if path is None:
            labels = np.zeros(self.image.size, kind)
            self._fill(labels)
            return LabelMap(**self._about(), labels=labels)
        import tifffile

        _require_place(path, self.image, np.dtype(kind).itemsize)
        with files.replaced(path) as temporary:
            mapped = tifffile.memmap(
                temporary,
                shape=self.image.size,
                dtype=kind,
                photometric="minisblack",
                metadata=None,
                extratags=self.image.georeference,
            )
            self._fill(mapped)
            mapped.flush()
            del mapped
        return LabelMap(**self._about(), labels=tifffile.memmap(path, mode="r"))

    def _fill(self, labels: np.ndarray) -> None:
        blend = Blend(self.grid, labels)
        for (i, j), _, samples in self._tiles():
            blend.add(i, j, _probabilities(samples[0], self.model))

    def _tiles(self) -> Iterator[tuple[tuple[int, int], np.ndarray, tuple[Any, ...]]]:
        """Give place, pixels and samples of each tile, row by row."""
        with contextlib.closing(self.samples):
            for done, (place, (_, rgb, samples)) in enumerate(
                zip(self.grid, self.samples, strict=True), start=1
            ):
                yield place, rgb, samples
                self.tell(done, len(self.grid))

    def _pictures(self) -> Iterator[Picture]:
        """Cut the image into tiles; of what was read, only the rows of one row of them are held."""
        height, width = self.grid.tile
        band, end = np.zeros((0, self.image.size[1], 3), np.uint8), 0
        for top in self.grid.rows:
            fresh = self.image.read(top + height - end)
            self.overview.add(fresh)
            band, end = np.concatenate([band[len(band) + top - end :], fresh]), top + height
            for left in self.grid.columns:
                tile = np.ascontiguousarray(band[:, left : left + width])
                yield Picture(f"{left},{top}", lambda tile=tile: tile)  # type: ignore[misc]

    def _about(self) -> dict[str, Any]:
        image, factor = self.overview.image(), self.overview.factor
        whole = self.image.size if factor > 1 else None
        return {
            "image": image,
            "classes": self.model.classes,
            "name": str(self.image.path),
            "whole": whole,
            "factor": factor,
        }


class _Overview:
    """Shrinks an image while it is read; a small one stays as it is."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.factor = -(-max(size) // OVERVIEW)
        self._size = size
        self._left: np.ndarray = np.zeros((0, size[1], 3), np.uint8)
        self._rows: list[np.ndarray] = []
        self._seen = 0

    def add(self, rows: np.ndarray) -> None:
        """Take the next rows."""
        if self.factor == 1:
            self._rows.append(rows)
            return
        self._seen += len(rows)
        rows = np.concatenate([self._left, rows])
        missing = -len(rows) % self.factor if self._seen == self._size[0] else 0
        count = (len(rows) + missing) // self.factor
        self._left = rows[count * self.factor :].copy()
        if count:
            right = -self._size[1] % self.factor
            whole: Any = rows[: count * self.factor]
            whole = cv2.copyMakeBorder(whole, 0, missing, 0, right, cv2.BORDER_REPLICATE)
            size = whole.shape[1] // self.factor, count
            self._rows.append(cv2.resize(whole, size, interpolation=cv2.INTER_AREA))

    def image(self) -> np.ndarray:
        """Return all of it, when all rows were taken."""
        return np.concatenate(self._rows)


def _moved(found: Instances, top: int, left: int) -> Iterator[Found]:
    """Give the objects of a tile in pixels of the whole image."""
    boxes = found.boxes.astype(np.float64) + (left, top, left, top)
    crops = [None] * len(found) if found.masks is None else found.masks.crops
    for box, score, label, crop in zip(
        boxes.tolist(), found.scores.tolist(), found.labels.tolist(), crops, strict=True
    ):
        if crop is None or crop.pixels.size:
            mask = crop and Crop(crop.top + top, crop.left + left, crop.pixels.copy())
            yield Found(label, score, tuple(box), mask)


def _probabilities(sample: Any, model: "Predictor") -> torch.Tensor:
    """Return those of a tile, (C, h, w), on the CPU."""
    logits = sample.seg_logits.data.float()
    if len(logits) > 1:
        return logits.softmax(0).cpu()
    one = logits.sigmoid().cpu()  # of a head with one channel, and the threshold for its class
    threshold = getattr(model.model.decode_head, "threshold", None)
    return torch.cat([torch.full_like(one, 0.5 if threshold is None else threshold), one])


def _most_objects(config: Config) -> int | None:
    """Return how many objects the model gives of a tile at most, as far as the config says."""
    found = [step.get("max_per_img") for step in sections.walk(config.model.get("test_cfg"))]
    head = (config.model.get("test_cfg") or {}).get("rcnn")
    if head is not None:
        found = [head.get("max_per_img")]
    known = [most for most in found if isinstance(most, int) and most > 0]
    return min(known, default=None)


def _require_place(path: Path, image: LargeImage, size: int) -> None:
    """Require room for a label map: a memory map on a full disk ends the process."""
    if path.exists() and path.samefile(image.path):
        raise InputError(f"`label_map` {path}: this is the image itself. Name another file.")
    files.require_place(path.parent, "`label_map`")
    path.parent.mkdir(parents=True, exist_ok=True)
    free, bytes_of_map = shutil.disk_usage(path.parent).free, size * image.size[0] * image.size[1]
    if free < bytes_of_map + 2**20:
        raise InputError(
            f"`label_map` {path}: it takes {bytes_of_map / 1e6:,.0f} MB, the disk has "
            f"{free / 1e6:,.0f} MB free. Choose another place."
        )
