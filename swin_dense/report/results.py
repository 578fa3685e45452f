"""What a model found in one image: values to compute with, a picture, JSON, COCO's results.

`Instances` are objects, each with a box; `LabelMap` is a class for each pixel; `Segments` are
disjoint objects and areas. All three know the image they are of and the classes of their model.
Letters: N objects, H W rows and columns of the image, in pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swin_dense.datasets import colours, images
from swin_dense.errors import InputError, extra_of_ours, nearest
from swin_dense.report import outlines, pictures
from swin_dense.report.masks import Masks

BAND = 1024  # rows of a label map counted at once
SCORE_DIGITS, BOX_DIGITS = 4, 2  # after the point, in JSON; COCO's results are not rounded


class Instance(NamedTuple):
    """One object: name and label of its class, score 0 to 1, box (4,) and mask (H, W) if any."""

    name: str
    label: int
    score: float
    box: np.ndarray
    mask: np.ndarray | None


class Region(NamedTuple):
    """All pixels of one class in a label map."""

    name: str
    label: int
    area: int


class Segment(NamedTuple):
    """One segment: its number in `Segments.ids`, its class, score 0 to 1, area in pixels."""

    id: int
    name: str
    label: int
    thing: bool
    score: float
    area: int


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result(ABC):
    """What all results share.

    Attributes:
        image: (H, W, 3) uint8, RGB: what was looked at; of a large image, a smaller picture of it.
        classes: names of all classes of the model; a label is a place in them.
        name: of the image in what it came from: a path, an address, "clip.mp4#12" for a frame.
        seconds: of a frame, from the start of its video.
        whole: height and width of a large image in pixels, which everything else is of.
        factor: pixels of it, across and down, that a pixel of `image` stands for.
    """

    image: np.ndarray
    classes: tuple[str, ...]
    name: str = ""
    seconds: float | None = None
    whole: tuple[int, int] | None = None
    factor: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.whole or (self.image.shape[0], self.image.shape[1])

    @abstractmethod
    def draw(self, image: Any = None) -> np.ndarray:
        """Draw the result over its image.

        Args:
            image: another one of the same size as `image`: a path, a PIL image or an RGB array.

        Returns:
            (H', W', 3) uint8, RGB; small images are enlarged so that names can be read, large ones
            are shown small, objects without names.
        """

    def draw_frame(self) -> np.ndarray:
        """Draw the result over its image, without anything beside it: frames have one size."""
        return self.draw()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold, numbers rounded."""

    @abstractmethod
    def to_coco(self, image_id: int | str, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return the result in COCO's format of results, to be evaluated.

        Args:
            image_id: of the image in the annotation file.
            category_ids: name of each class -> its id in the annotation file.

        Raises:
            InputError: a class of the model has no id.
        """

    def to_geojson(self) -> dict[str, Any]:
        """Return a FeatureCollection: a feature for each object or class, its outline in pixels.

        Outlines run along the edges of pixels, so that they have exactly the mask's area. Objects
        without masks are their boxes. `properties` are class and, where there is one, score.
        """
        features = [
            {"type": "Feature", "geometry": shape, "properties": about}
            for shape, about in self._shapes()
            if shape["coordinates"]
        ]
        return {"type": "FeatureCollection", "features": features}

    @abstractmethod
    def to_supervision(self) -> Any:
        """Return `supervision.Detections`, which its annotators, zones and trackers take.

        An object, or each class of a label map, is a row; its name is in `data["class_name"]`.

        Raises:
            InputError: supervision is not installed.
        """

    @abstractmethod
    def _shapes(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Give the geometry and the properties of each feature."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __str__(self) -> str: ...

    def __repr__(self) -> str:
        height, width = self.size
        return f"<{type(self).__name__} of {width}x{height} pixels: {self}>"

    def _canvas(self, image: Any) -> np.ndarray:
        if image is None:
            return self.image
        rgb = images.as_rgb(image)
        height, width = self.image.shape[:2]
        if rgb.shape[:2] != (height, width):
            raise InputError(
                f"draw: the image is {rgb.shape[1]}x{rgb.shape[0]} pixels, the result is of one of "
                f"{width}x{height} (width x height). Give one of the same size."
            )
        return rgb

    def _ids(self, category_ids: Mapping[str, int]) -> list[int]:
        """Give the category id of each label."""
        for name in self.classes:
            if name not in category_ids:
                raise InputError(
                    f"to_coco: category_ids has no {name!r}, a class of the model."
                    f"{nearest(name, category_ids)} It says which id each name has: "
                    '{row["name"]: row["id"] for row in annotations["categories"]}.'
                )
        return [category_ids[name] for name in self.classes]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Instances(Result):
    """Objects in an image, the surest first. `for name, label, score, box, mask in instances`.

    Attributes:
        boxes: (N, 4) float32, left, top, right, bottom in pixels.
        scores: (N,) float32, 0 to 1.
        labels: (N,) int64.
        masks: N masks (H, W) of bools, held where objects are; `np.asarray` makes them an array.
            None of a model that finds boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Masks | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the name of the class of each object."""
        return tuple(self.classes[label] for label in self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Instance]:
        masks: Any = [None] * len(self) if self.masks is None else self.masks
        rows = zip(
            self.names, self.labels.tolist(), self.scores.tolist(), self.boxes, masks, strict=True
        )
        return (Instance(*row) for row in rows)

    def __str__(self) -> str:
        return _counted(self.names)

    def draw(self, image: Any = None) -> np.ndarray:
        """Draw boxes, masks, names and scores; see `Result.draw`."""
        palette = colours.palette(len(self.classes))
        if self.whole is not None:
            masks = None if self.masks is None else self.masks.shrunk(self.factor)
            counts = {name: self.names.count(name) for name in dict.fromkeys(self.names)}
            shown = dict(zip(self.classes, palette, strict=True))
            rows = [(shown[name], f"{name}  {count:,}") for name, count in counts.items()]
            colour = [palette[label] for label in self.labels]
            boxes = self.boxes / self.factor
            return pictures.objects_overview(self._canvas(image), boxes, masks, colour, rows)
        return pictures.instance_overlay(
            self._canvas(image),
            self.boxes,
            self.masks,
            [f"{row.name} {row.score:.2f}" for row in self],
            [palette[label] for label in self.labels],
        )

    def to_json(self) -> dict[str, Any]:
        """Return height, width and the instances, masks as COCO's run lengths."""
        rows: list[dict[str, Any]] = [
            {
                "class": row.name,
                "score": round(row.score, SCORE_DIGITS),
                "box": [round(side, BOX_DIGITS) for side in row.box.tolist()],
            }
            for row in self
        ]
        for entry, mask in zip(rows, self._encoded(), strict=False):
            entry["mask"] = mask
        return {**_sides(self), "instances": rows}

    def to_coco(self, image_id: int | str, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return detections: category_id, bbox (x, y, width, height), score and segmentation."""
        ids = self._ids(category_ids)
        rows: list[dict[str, Any]] = []
        for row in self:
            left, top, right, bottom = row.box.tolist()
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": ids[row.label],
                    "bbox": [left, top, right - left, bottom - top],
                    "score": row.score,
                }
            )
        for entry, mask in zip(rows, self._encoded(), strict=False):
            entry["segmentation"] = mask
        return rows

    def to_supervision(self) -> Any:
        """Return boxes, scores, labels, names and masks; see `Result.to_supervision`."""
        masks = None if self.masks is None else np.asarray(self.masks)
        return _detections(self.boxes, self.labels, self.names, self.scores, masks)

    def some(self, chosen: np.ndarray) -> "Instances":
        """Return some of the objects, by their places or as a bool for each."""
        if not len(chosen):
            chosen = np.zeros(0, int)
        masks = None if self.masks is None else self.masks[chosen]
        boxes, scores, labels = self.boxes[chosen], self.scores[chosen], self.labels[chosen]
        return replace(self, boxes=boxes, scores=scores, labels=labels, masks=masks)

    def _shapes(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for i, (name, score) in enumerate(zip(self.names, self.scores.tolist(), strict=True)):
            about = {"class": name, "score": round(score, SCORE_DIGITS)}
            if self.masks is None:
                yield _box_outline(self.boxes[i]), about
            else:
                crop = self.masks.crops[i]
                yield _outline(crop.pixels, crop.left, crop.top), about

    def _encoded(self) -> list[dict[str, Any]]:
        """Encode the masks; of a model without masks there are none."""
        return [] if self.masks is None else self.masks.run_lengths()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LabelMap(Result):
    """The class of each pixel. `for name, label, area in label_map` gives the classes in it.

    Attributes:
        labels: (H, W) int64; of a large image uint8, or uint16 of more than 256 classes.
    """

    labels: np.ndarray

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Region]:
        counts = np.zeros(len(self.classes), np.int64)
        for top in range(0, len(self.labels), BAND):
            band = self.labels[top : top + BAND].ravel()
            counts += np.bincount(band, minlength=len(self.classes))
        rows = enumerate(zip(self.classes, counts.tolist(), strict=True))
        return (Region(name, label, area) for label, (name, area) in rows if area)

    def __str__(self) -> str:
        return ", ".join(row.name for row in self)

    def draw(self, image: Any = None) -> np.ndarray:
        """Draw the colours of the classes, a legend to the right; see `Result.draw`."""
        palette = colours.palette(len(self.classes))
        return pictures.label_overlay(self._canvas(image), self._shown(), self.classes, palette)

    def draw_frame(self) -> np.ndarray:
        """Draw the colours of the classes, each with its name on its widest part."""
        rows = [{"id": row.label + 1, "class": row.name} for row in self]
        palette = dict(zip(self.classes, colours.palette(len(self.classes)), strict=True))
        shown = self._shown().astype(np.int64) + 1
        return pictures.segment_overlay(self.image, shown, rows, palette)

    def _shown(self) -> np.ndarray:
        """Return the labels of `image`: of a large one, those in the middle of its pixels."""
        if self.whole is None:
            return self.labels
        rows, columns = (
            np.minimum(np.arange(count) * self.factor + self.factor // 2, side - 1)
            for count, side in zip(self.image.shape, self.size, strict=False)
        )
        return self.labels[rows][:, columns]

    def to_json(self) -> dict[str, Any]:
        """Return height, width, the pixels of each class and the map as run lengths."""
        areas = {row.name: row.area for row in self}
        return {**_sides(self), "classes": areas, "label_map": run_lengths(self.labels)}

    def to_coco(self, image_id: int | str, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return COCO's form for stuff: a row with the pixels of each class in the image."""
        ids = self._ids(category_ids)
        return [
            {
                "image_id": image_id,
                "category_id": ids[row.label],
                "segmentation": run_lengths_of_mask(self.labels == row.label),
            }
            for row in self
        ]

    def to_supervision(self) -> Any:
        """Return the mask of each class in the image; see `Result.to_supervision`."""
        rows = list(self)
        masks = np.stack([self.labels == row.label for row in rows])
        labels = np.array([row.label for row in rows])
        return _detections(_boxes(masks), labels, [row.name for row in rows], None, masks)

    def _shapes(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for row in self:
            yield _outline(self.labels == row.label), {"class": row.name}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Segments(Result):
    """Objects and areas that do not overlap, the largest first. `for segment in segments`.

    Attributes:
        ids: (H, W) int64, `Segment.id` of each pixel, 0 where nothing was found.
        rows: what is known of each segment.
    """

    ids: np.ndarray
    rows: tuple[Segment, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.rows)

    def __str__(self) -> str:
        return _counted([row.name for row in self.rows])

    def draw(self, image: Any = None) -> np.ndarray:
        """Draw colours, borders, names and scores; see `Result.draw`."""
        palette = dict(zip(self.classes, colours.palette(len(self.classes)), strict=True))
        return pictures.segment_overlay(self._canvas(image), self.ids, self._json_rows(), palette)

    def to_json(self) -> dict[str, Any]:
        """Return height, width, the segments, and their map as run lengths."""
        return {
            **_sides(self),
            "segments": self._json_rows(),
            "segment_map": run_lengths(self.ids),
        }

    def to_coco(self, image_id: int | str, category_ids: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return COCO's panoptic form: one row, whose file_name is the PNG to write `to_png` to."""
        ids = self._ids(category_ids)
        stem = f"{image_id:012d}" if isinstance(image_id, int) else image_id
        segments = [
            {"id": row.id, "category_id": ids[row.label], "area": row.area, "score": row.score}
            for row in self.rows
        ]
        return [{"image_id": image_id, "file_name": f"{stem}.png", "segments_info": segments}]

    def to_png(self) -> np.ndarray:
        """Return the ids as COCO's panoptic PNGs hold them: (H, W, 3) uint8, red the lowest."""
        digits = [self.ids >> shift & 255 for shift in (0, 8, 16)]
        return np.stack(digits, axis=-1).astype(np.uint8)

    def to_supervision(self) -> Any:
        """Return the mask of each segment; see `Result.to_supervision`."""
        masks = np.zeros((len(self.rows), *self.size), bool)
        for mask, row in zip(masks, self.rows, strict=True):
            mask[:] = self.ids == row.id
        labels = np.array([row.label for row in self.rows], np.int64)
        scores = np.array([row.score for row in self.rows], np.float32)
        return _detections(_boxes(masks), labels, [r.name for r in self.rows], scores, masks)

    def _shapes(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for row in self._json_rows():
            about = {"class": row["class"], "score": row["score"], "isthing": row["isthing"]}
            yield _outline(self.ids == row["id"]), about

    def _json_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "id": row.id,
                "class": row.name,
                "isthing": row.thing,
                "score": round(row.score, SCORE_DIGITS),
                "area": row.area,
            }
            for row in self.rows
        ]


def run_lengths(labels: np.ndarray) -> dict[str, Any]:
    """Encode a map row by row: the value of each run and its length; lossless and short."""
    flat = labels.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    lengths = np.diff(starts, append=len(flat))
    return {"values": flat[starts].tolist(), "lengths": lengths.tolist()}


def run_lengths_of_mask(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) as COCO does: runs down the columns, as text."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def _outline(mask: np.ndarray, left: int = 0, top: int = 0) -> dict[str, Any]:
    parts = [
        [[list(xy) for xy in ring] for ring in part] for part in outlines.polygons(mask, left, top)
    ]
    return {"type": "MultiPolygon", "coordinates": parts}


def _box_outline(box: np.ndarray) -> dict[str, Any]:
    left, top, right, bottom = (round(side, BOX_DIGITS) for side in box.tolist())
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {"type": "Polygon", "coordinates": [ring]}


def _boxes(masks: np.ndarray) -> np.ndarray:
    """Return the boxes (N, 4) around masks (N, H, W)."""
    crops = Masks.of(masks).crops
    sides = [(c.left, c.top, c.left + c.pixels.shape[1], c.top + c.pixels.shape[0]) for c in crops]
    return np.array(sides, np.float32).reshape(-1, 4)


def _detections(
    boxes: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    scores: np.ndarray | None,
    masks: np.ndarray | None,
) -> Any:
    try:
        from supervision import Detections
    except ImportError as error:
        text = f"to_supervision: supervision does not import ({error})."
        raise InputError(f"{text} {extra_of_ours('supervision')}") from error
    data = {"class_name": np.array(names, dtype=str)}
    return Detections(xyxy=boxes, mask=masks, confidence=scores, class_id=labels, data=data)


def _sides(result: Result) -> dict[str, int]:
    return dict(zip(("height", "width"), result.size, strict=True))


def _counted(names: Sequence[str]) -> str:
    """Say how many there are of each name."""
    return ", ".join(f"{names.count(n)} {n}" for n in dict.fromkeys(names)) or "nothing found"
