"""Answer requests: the bytes of a picture become what a model found in it, or a sentence why not.

Nothing here knows of a server or a browser. `Answers.look` takes bytes and a name as strangers
send them; `Answers.show` gives a view of what was found, for another threshold or other classes,
without another look. What is wrong with a request is an `InputError` whose text is for the one who
sent it.
"""

import collections
import json
import re
import secrets
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from swin_dense.datasets import images
from swin_dense.errors import InputError
from swin_dense.report.results import LabelMap, Result
from swin_dense.task import Task
from swin_dense.web import views
from swin_dense.web.line import Deadline, Line
from swin_dense.web.views import View

LEAST = 0.05  # what is less sure is never shown, so that one look serves all thresholds above it
KINDS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow has others that run programs
# A model may hold two float32 values for each pixel and each class, or each of a hundred objects.
# Pictures for which that is more are shrunk before it sees them.
MEMORY = 3 * 2**30  # bytes
OBJECTS = 100
KEPT, KEPT_BYTES = 32, 2**30  # pictures, and bytes of them, that can be shown again without a look
NAME = 80  # letters of a file name that are kept


@dataclass(frozen=True)
class Limits:
    """What a request may be and take.

    Attributes:
        size: bytes of a file.
        pixels: of a picture, by its header.
        working: pixels with which it is looked at; a larger one is shrunk before.
        seconds: from the turn of a picture to its answer.
        waiting: pictures in line, the one that is looked at among them.
    """

    size: int = 20 * 2**20
    pixels: int = 50_000_000
    working: int = 4_000_000
    seconds: float = 60.0
    waiting: int = 16


class Model(Protocol):
    """A trained model, as `swin_dense.load` returns it."""

    task: Task
    classes: tuple[str, ...]
    weights: dict[str, str]
    model: Any

    def predict(self, source: Any, score: float | None = None) -> Any: ...


@dataclass(frozen=True)
class Seen:
    """What one look at a picture gave.

    Attributes:
        model: the name of the model.
        result: all that is at least `LEAST` sure, with its image.
        notes: sentences on what was done to the picture before.
        seconds: that the look took.
    """

    model: str
    result: Result
    notes: tuple[str, ...]
    seconds: float

    @property
    def bytes(self) -> int:
        """Return about how much memory it holds."""
        labels = getattr(self.result, "labels", None) if isinstance(self.result, LabelMap) else None
        masks = getattr(self.result, "masks", None)
        held = [crop.pixels.nbytes for crop in masks.crops] if masks is not None else []
        arrays = (self.result.image, labels, getattr(self.result, "ids", None))
        return sum(held) + sum(array.nbytes for array in arrays if array is not None)


class Answers:
    """What is behind a page: models, limits, and what was found in the last pictures.

    Threads may share it; one picture at a time is looked at.

    Attributes:
        models: by the names that a page offers.
    """

    def __init__(self, models: Mapping[str, Model], limits: Limits | None = None) -> None:
        self.models, self.limits = dict(models), limits or Limits()
        self._line = Line(self.limits.waiting)
        self._deadline = Deadline(self.limits.seconds)
        self._seen: collections.OrderedDict[str, Seen] = collections.OrderedDict()
        self._lock = threading.Lock()
        for model in self.models.values():
            self._deadline.watch(model.model)

    def look(self, data: bytes, name: str, model: str) -> str:
        """Look at a picture.

        Args:
            data: the content of a file, whatever it is.
            name: of the file, whatever it is; nothing is opened by it.
            model: a key of `models`.

        Returns:
            a key for `show`.

        Raises:
            InputError: it is no picture, or too large, or took too long, or the line is full.
        """
        name = file_name(name)
        self._require(model)
        self._require_size(data, name)
        with self._line.turn(), self._deadline.running():
            rgb, notes = self._decoded(data, name)
            return self._looked(rgb, name, model, notes)

    def look_at(self, rgb: np.ndarray, name: str, model: str) -> str:
        """Look at a picture that is decoded, (H, W, 3) uint8, RGB: one that the page brings."""
        self._require(model)
        with self._line.turn(), self._deadline.running():
            return self._looked(rgb, file_name(name), model, ())

    def look_again(self, key: str, model: str) -> str:
        """Look at a picture that was looked at with another model; returns a new key."""
        self._require(model)
        seen = self._find(key)
        with self._line.turn(), self._deadline.running():
            return self._looked(seen.result.image, seen.result.name, model, seen.notes)

    def show(self, key: str, least: float = LEAST, names: Collection[str] | None = None) -> View:
        """Show what was found.

        Args:
            least: leave out what is less sure; a label map has no scores.
            names: of the classes to show; all of them if None.

        Raises:
            InputError: too many pictures were looked at since.
        """
        seen = self._find(key)
        return views.view(seen.result, least, names)

    def seen(self, key: str) -> Seen:
        """Return what the look gave that has this key."""
        return self._find(key)

    def written(self, key: str, view: View) -> tuple[str, str]:
        """Return a view as JSON and as GeoJSON."""
        seen = self._find(key)
        weights = self.models[seen.model].weights.get("sha256")
        about = {"image": seen.result.name, "model": seen.model, "weights sha256": weights}
        whole = {**about, **view.result.to_json()}
        return tuple(  # type: ignore[return-value]
            json.dumps(values, ensure_ascii=False) for values in (whole, view.result.to_geojson())
        )

    def _looked(self, rgb: np.ndarray, name: str, model: str, notes: tuple[str, ...]) -> str:
        chosen, start = self.models[model], time.monotonic()
        rgb, notes = _shrunk(rgb, notes, chosen, self.limits.working)
        self._deadline.ask()
        result = chosen.predict(rgb, None if chosen.task is Task.SEMANTIC else LEAST)
        self._deadline.ask()
        seconds = time.monotonic() - start
        return self._keep(Seen(model, replace(result, name=name), notes, seconds))

    def _require(self, model: str) -> None:
        if model not in self.models:
            raise InputError("There is no such model here. Choose one of the list.")

    def _require_size(self, data: bytes, name: str) -> None:
        if len(data) > self.limits.size:
            raise InputError(
                f"{name}: {_mega(len(data))} MB, and a file may have {_mega(self.limits.size)} "
                "MB here. Save it as a JPEG, or smaller."
            )

    def _decoded(self, data: bytes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Decode a picture as `predict` would, after a look at its header."""
        try:
            header = images.open_image(data, name)
        except images.TooManyPixelsError as error:
            raise self._too_large(name, "") from error
        if header.format not in KINDS:
            raise InputError(
                f"{name}: {header.format} files are not taken here. Use JPEG, PNG, WebP, GIF, BMP "
                "or TIFF."
            )
        height, width = images.upright_size(header)
        if height * width > self.limits.pixels:
            raise self._too_large(name, f"{width}x{height} pixels are ")
        notes: tuple[str, ...] = ()
        if getattr(header, "is_animated", False) and header.format != "MPO":
            notes = ("The file has several frames or pages; this is its first one.",)
        return images.decode_rgb(data, name), notes

    def _too_large(self, name: str, what: str) -> InputError:
        return InputError(
            f"{name}: {what or 'this has '}more than the {self.limits.pixels / 1e6:g} megapixels "
            "that a picture may have here. Make it smaller, or cut it into pieces."
        )

    def _keep(self, seen: Seen) -> str:
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._seen[key] = seen
            while len(self._seen) > 1 and (
                len(self._seen) > KEPT or sum(s.bytes for s in self._seen.values()) > KEPT_BYTES
            ):
                self._seen.popitem(last=False)
        return key

    def _find(self, key: str) -> Seen:
        with self._lock:
            if key in self._seen:
                self._seen.move_to_end(key)
                return self._seen[key]
        raise InputError(
            "This picture is no longer held here, as others came after it. Give it again."
        )


def file_name(text: str) -> str:
    """Return what a stranger calls a file as a name without folders that can be printed."""
    last = re.split(r"[/\\]", str(text))[-1]
    kept = "".join(letter for letter in last if letter.isprintable()).strip()[-NAME:]
    return kept if kept.strip(".") else "picture"


def _shrunk(
    rgb: np.ndarray, notes: tuple[str, ...], model: Model, working: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Shrink a picture to `working` pixels, or as many as a model has memory for; notes tell it."""
    height, width = rgb.shape[:2]
    layers = len(model.classes)
    if model.task is not Task.SEMANTIC:
        layers = max(layers, OBJECTS)
    share = (min(working, MEMORY / 8 / layers) / (height * width)) ** 0.5
    if share >= 1:
        return rgb, notes
    size = max(1, int(width * share)), max(1, int(height * share))
    small = Image.fromarray(rgb).resize(size, Image.Resampling.BOX)
    note = (
        f"The picture was shrunk from {width}x{height} to {size[0]}x{size[1]} pixels before the "
        "look: all places and sizes here are in these."
    )
    return np.asarray(small), (*notes, note)


def _mega(count: int) -> str:
    return f"{count / 2**20:.3g}"
