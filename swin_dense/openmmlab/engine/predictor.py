"""Look at images with a trained model: `load` finds it, `Predictor.predict` returns what it saw.

`Predictor.stream` gives the results of a folder, a video or a camera one after the other. Several
threads may predict, with one model or with several: nothing that they share is changed.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmdet.structures import INSTANCE_OFFSET
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS

from swin_dense.checkpoints.files import Checkpoint
from swin_dense.datasets import sources
from swin_dense.datasets.ahead import ahead
from swin_dense.datasets.sources import Picture, Source
from swin_dense.errors import InputError
from swin_dense.export import sessions
from swin_dense.export.sessions import Session
from swin_dense.openmmlab.engine import mirrored, trained, weights
from swin_dense.openmmlab.engine.file_model import FileModel
from swin_dense.openmmlab.engine.torch_errors import explained
from swin_dense.openmmlab.settings import building, image_sizes
from swin_dense.openmmlab.settings.classes import set_classes
from swin_dense.ops import nms
from swin_dense.report.masks import Masks
from swin_dense.report.results import Instances, LabelMap, Result, Segment, Segments
from swin_dense.task import Task

SCORE = 0.3  # below it, objects are left out unless asked for
OVERLAP = 0.5  # intersection over union above which two objects are one, whatever their classes
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "half": torch.float16}
_LOADING = (
    threading.Lock()
)  # mmengine's scope, in which names are looked up, is one for all threads


def load(
    config: str | Path | Config | None = None,
    weights: str | Path | None = None,
    *,
    device: str | None = None,
    image_scale: tuple[int, int] | None = None,
    options: Mapping[str, Any] | None = None,
    precision: str = "float32",
    trust_config: bool = False,
) -> "Predictor":
    """Load a trained model.

    `load("mask_rcnn_swin_t", "weights.pth")`, `load("work_dirs/run")` or `load("iter_400.pth")`,
    as a checkpoint of ours carries its config.

    Args:
        config: a config's name, path or object; or the folder of a run, for its last checkpoint,
            or a checkpoint, or a file of tools/export.py, where that is all there is.
        weights: a checkpoint: a path, an address, or the folder of a run.
        device: "cpu", "cuda", "cuda:1", ...; a GPU if there is one. A file of tools/export.py runs
            on the processor unless told otherwise.
        image_scale: (longer, shorter side) in pixels that images are fitted into; that of the
            checkpoint, else of the config.
        options: changes of the config, dotted key -> value.
        precision: "float32"; "bf16" or "half" (16 bits) computes products by autocast.
        trust_config: run the config's file as a program; else it is evaluated as data, and what
            only a program has is refused.

    Raises:
        InputError: there is no such config or checkpoint, they do not fit one another, the
            checkpoint names no classes, or the device or its precision cannot be used.
    """
    file = config if weights is None else weights
    if isinstance(file, str | Path) and Path(file).suffix in sessions.READERS:
        with _LOADING:
            return _of_file(Path(file), device or "cpu", image_scale, options, precision)
    device = _usable(device)
    with _LOADING:
        found, checkpoint = trained.find(
            config, weights, options, image_scale, trust_config=trust_config
        )
        return Predictor(found, checkpoint, device, precision)


class Predictor:
    """A trained model, ready to look at images.

    Attributes:
        config: complete; of its own.
        classes: names of what it knows.
        task: what it finds.
        model: mmdet's or mmseg's module, on its device.
        weights: file, sha256 and layout of what was loaded.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: Checkpoint,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        """Build a model; see `load`.

        Args:
            config: an experiment, which is changed to have the checkpoint's classes; its data
                need not be there.
            checkpoint: weights of the whole model, with the names of its classes.
        """
        if precision not in PRECISIONS:
            raise InputError(f"precision: one of {', '.join(PRECISIONS)}, got {precision!r}.")
        self._dtype = PRECISIONS[precision]
        names, things = weights.class_names(checkpoint), weights.thing_names(checkpoint)
        if names is None:
            raise InputError(
                f"checkpoint: {checkpoint.source} does not say which classes it knows. Those of "
                "our runs do; others can be evaluated, where the data names the classes."
            )
        set_classes(config, names, things)
        with MODELS.switch_scope_and_registry(config.default_scope) as registry:
            built = building.build(registry, config.model, "model")
        self._take(config, names, things, revert_sync_batchnorm(built), device)
        advice = "Give the config the checkpoint was trained with."
        ledger = weights.load(self.model, checkpoint, weights.WHOLE, advice)
        self.weights = {"file": ledger.source, "sha256": ledger.sha256, "layout": ledger.layout}
        self.model.to(device).eval()

    def _take(
        self, config: Config, names: Sequence[str], things: Any, model: Any, device: str
    ) -> None:
        """Take a model over, and prepare images as its config says."""
        self.config, self.classes, self.task = config, tuple(names), Task.of(config)
        self.things, self.device = tuple(things or ()), torch.device(device)
        self.model: BaseModel | FileModel = model
        with (
            MODELS.switch_scope_and_registry(config.default_scope),
            building.refusals("test_dataloader.dataset.pipeline"),
        ):
            self._pipeline = Compose(_steps(config))

    @classmethod
    def of_file(cls, session: Session, config: Config) -> "Predictor":
        """Return one that asks the file of a model.

        Args:
            config: that the model was trained with.
        """
        about = session.about
        self = cls.__new__(cls)
        self._dtype = None
        set_classes(config, about["classes"], about["things"])
        model = FileModel(session, config)
        self._take(config, about["classes"], about["things"], model, "cpu")
        self.weights = {**about["weights"], "file": str(session.path)}
        return self

    def __repr__(self) -> str:
        return (
            f"<{type(self.model).__name__}: {self.task.value}, {len(self.classes)} classes, "
            f"{self.weights['file']}, on {self.device}>"
        )

    def predict(self, source: Any, score: float | None = None, **how: Any) -> Any:
        """Find what is in an image, or in each of several.

        Args:
            source: a path, an http address, a PIL image or an RGB array (H, W, 3) uint8; or a
                folder, a pattern such as "photos/**/*.jpg", a video, or a list of any of these.
            score: leave out what is less sure, 0 to 1; 0.3 if None. A label map has no scores.
            how: what else `stream` takes.

        Returns:
            of an image its result: objects with boxes, a class for each pixel, or disjoint
            segments, by the model's task. Of several the list of their results, each with its
            image: `stream` gives them one after the other.

        Raises:
            InputError: it is no image, it is too small, or an argument means nothing here.
        """
        row = sources.find(source)
        if row.endless:
            raise InputError(f"{source}: this has no end. `stream` gives each result as it comes.")
        found = list(self.stream(row, score, **how))
        return found[0] if row.single and found else found

    def stream(
        self,
        source: Any,
        score: float | None = None,
        *,
        batch: int = 1,
        class_agnostic: bool = False,
        mirror: bool = False,
        skip: Callable[[Picture, InputError], None] | None = None,
    ) -> Generator[Any, None, None]:
        """Find what is in each image of a source, in its order; the next are read meanwhile.

        Memory does not grow with the number of images, unless who takes the results keeps them.

        Args:
            source: as for `predict`, or a camera's number, or the address of a live stream.
            score: as for `predict`.
            batch: images that are computed at once, where the next ones have the same size in the
                model; a result is the same, to rounding, as of the image alone.
            class_agnostic: of objects that cover one another (intersection over union above 0.5),
                keep the surest, also where their classes differ.
            mirror: look at the mirror image too, and join what is found: surer, in twice the time.
            skip: is told each picture that cannot be read, which is then left out; if None, it
                raises.

        Yields:
            what `predict` returns of an image, with its `name`.

        Raises:
            InputError: see `predict`.
        """
        least = self.least(score)
        if class_agnostic and self.task in (Task.SEMANTIC, Task.PANOPTIC):
            raise InputError(
                "class_agnostic: here each pixel has one class already, nothing covers anything. "
                "Leave it out."
            )
        if mirror and self.task is Task.PANOPTIC:
            raise InputError("mirror: segments of two images cannot be joined. Leave it out.")
        if mirror and self.task is Task.SEMANTIC and isinstance(self.model, FileModel):
            raise InputError("mirror: a file gives classes, no scores to be joined. Leave it out.")
        found = self.samples(sources.find(source), batch, mirror=mirror, skip=skip)
        return self._results(found, least, class_agnostic)

    def predict_large(
        self, path: str | Path, score: float | None = None, **how: Any
    ) -> Instances | LabelMap:
        """Find what is in an image that is too large to be looked at, or held, as a whole.

        Overlapping tiles are looked at, and what they show is made one result: objects cut by a
        border are put together by their masks, label maps are blended. `docs/large_images.md` says
        how, what memory it takes, and how much the place of the tiles still decides.

        Args:
            path: TIFF, BigTIFF, PNG, JPEG, ...
            score: as for `predict`.
            how: what `large.predict` takes: tile, overlap, batch, level, most_pixels, label_map,
                tell.

        Returns:
            as `predict` does, in pixels of the whole image; its `image` is a smaller picture.

        Raises:
            InputError: it is no image, too large, or cut off; or an argument means nothing here.
        """
        from swin_dense.openmmlab.engine import large

        if self.task is Task.SEMANTIC and isinstance(self.model, FileModel):
            raise InputError(
                f"{self.weights['file']}: a file gives classes, and label maps of tiles are joined "
                "by scores. Name the checkpoint that it was made of."
            )
        return large.predict(self, path, score, **how)

    def samples(
        self,
        row: Source,
        batch: int,
        mirror: bool = False,
        skip: Callable[[Picture, InputError], None] | None = None,
    ) -> "Generator[tuple[Picture, np.ndarray, tuple[Any, ...]], None, None]":
        """Look at each picture of a source; the arguments are those of `stream`.

        Yields:
            the picture, its pixels, and what mmdet or mmseg says of it and of its mirror image.
        """
        if not isinstance(batch, int) or batch < 1:
            raise InputError(f"batch: at least 1 image at once, got {batch}.")
        return self._samples(self._ready(row, mirror), batch, skip)

    def _samples(
        self,
        ready: "Generator[_Ready, None, None]",
        batch: int,
        skip: Callable[[Picture, InputError], None] | None,
    ) -> "Generator[tuple[Picture, np.ndarray, tuple[Any, ...]], None, None]":
        rows = ahead(ready, batch + 1)
        with contextlib.closing(rows):
            for group in _groups(_usable_ones(rows, skip), batch):
                looks = [
                    self._look(items) for items in zip(*(one.items for one in group), strict=True)
                ]
                for one, samples in zip(group, zip(*looks, strict=True), strict=True):
                    yield one.picture, one.rgb, samples

    def _results(
        self,
        found: "Generator[tuple[Picture, np.ndarray, tuple[Any, ...]], None, None]",
        least: float,
        class_agnostic: bool,
    ) -> Generator[Result, None, None]:
        with contextlib.closing(found):
            for picture, rgb, samples in found:
                result = self.result(samples, rgb, least)
                if class_agnostic and isinstance(result, Instances):
                    result = _surest(result)
                yield replace(result, name=picture.name, seconds=picture.seconds)

    def _ready(self, row: Source, mirror: bool) -> "Generator[_Ready, None, None]":
        """Read pictures and prepare them for the model."""
        for picture in row:
            try:
                rgb = picture.read()
                both = (rgb, np.ascontiguousarray(rgb[:, ::-1])) if mirror else (rgb,)
                yield _Ready(picture, rgb, tuple(map(self._prepared, both)), None)
            except InputError as error:
                yield _Ready(picture, np.zeros((0, 0, 3), np.uint8), (), error)

    def result(self, samples: Sequence[Any], rgb: np.ndarray, least: float) -> Result:
        """Take over what was found in an image, and in its mirror image if there is one."""
        sample, *mirror = samples
        if self.task is Task.SEMANTIC:
            if mirror:
                threshold = getattr(self.model.decode_head, "threshold", None)
                labels = mirrored.label_map(sample, mirror[0], threshold)
            else:
                labels = sample.pred_sem_seg.data[0].cpu().numpy()
            return LabelMap(image=rgb, classes=self.classes, labels=labels)
        if self.task is Task.PANOPTIC:
            return _segments(sample.pred_panoptic_seg, rgb, self.classes, self.things, least)
        found = _instances(sample.pred_instances, rgb, self.classes, least)
        if mirror:
            other = _instances(mirror[0].pred_instances, rgb, self.classes, least)
            return mirrored.joined(found, other)
        return found

    def least(self, score: float | None) -> float:
        """Return the lowest score that is asked for; InputError if it is none."""
        if score is None:
            return SCORE
        if self.task is Task.SEMANTIC:
            raise InputError("score: every pixel has a class here, none has a score. Leave it out.")
        if not isinstance(score, Real) or not 0 <= score <= 1:
            raise InputError(f"score: scores are 0 to 1, got {score!r}.")
        return score

    def _prepared(self, rgb: np.ndarray) -> dict[str, Any]:
        try:
            return self._pipeline({"img": rgb, "img_id": 0, "img_path": "", "seg_fields": []})
        except cv2.error as error:
            raise InputError(
                f"an image of {rgb.shape[1]}x{rgb.shape[0]} pixels cannot be resized to the "
                "config's scale without a side of 0 pixels."
            ) from error

    @torch.inference_mode()
    def _look(self, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return mmdet's or mmseg's data sample of each image."""
        batch = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
        kind = self.device.type
        with explained(), torch.autocast(kind, self._dtype, enabled=self._dtype is not None):
            return self.model.test_step(batch)


class _Ready(NamedTuple):
    """A picture as the model takes it, and its mirror image if asked, or why there is none."""

    picture: Picture
    rgb: np.ndarray
    items: tuple[dict[str, Any], ...]
    error: InputError | None


def _usable_ones(
    rows: Iterable[_Ready], skip: Callable[[Picture, InputError], None] | None
) -> Iterator[_Ready]:
    for ready in rows:
        if ready.error is None:
            yield ready
        elif skip is None:
            raise ready.error
        else:
            skip(ready.picture, ready.error)


def _shape(ready: _Ready) -> torch.Size:
    return ready.items[0]["inputs"].shape


def _groups(rows: Iterable[_Ready], most: int) -> Iterator[list[_Ready]]:
    """Put neighbours of one size together: padding to another size would change their results."""
    group: list[_Ready] = []
    for ready in rows:
        if group and _shape(ready) != _shape(group[0]):
            yield group
            group = []
        group.append(ready)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _of_file(
    path: Path,
    device: str,
    image_scale: tuple[int, int] | None,
    options: Mapping[str, Any] | None,
    precision: str,
) -> Predictor:
    """Open the file of a model.

    Raises:
        InputError: something is asked for that was settled when the file was written.
    """
    if options or precision != "float32":
        what = "precision" if precision != "float32" else ", ".join(options or ())
        raise InputError(
            f"{what}: settled in the file of a model, {path}. Leave it out, or write another file."
        )
    session = sessions.open_file(path, device)
    config = trained.read_config({"meta": {"config": session.about["config"]}})
    if config is None:
        raise InputError(f"{path}: the config in it cannot be read. Write it again.")
    if image_scale:
        image_sizes.scale_images(config, image_scale)
    return Predictor.of_file(session, config)


def _steps(config: Config) -> list[Any]:
    """Return the test pipeline without annotations; the image is read before it."""
    loader = config.get("test_dataloader")
    if loader is None:
        raise InputError(
            "config: it has no test_dataloader, whose pipeline says how images reach the model."
        )
    kept: list[Any] = [{"type": "swin_dense.LoadImage"}]
    for step in loader.dataset.pipeline:
        if not step["type"].rpartition(".")[2].startswith("Load"):
            kept.append(step)
    return kept


def _usable(device: str | None) -> str:
    """Return the device that is asked for, if it can be used, or the best there is."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {device} cannot be used here ({str(error).splitlines()[0]}). "
            "Leave it out to take a GPU if there is one."
        ) from error
    return device


def _surest(found: Instances) -> Instances:
    """Drop objects that are covered by a surer one of whatever class."""
    kept = nms(torch.from_numpy(found.boxes), torch.from_numpy(found.scores), OVERLAP)
    return found.some(kept.numpy())


def _instances(found: Any, rgb: np.ndarray, classes: tuple[str, ...], least: float) -> Instances:
    """Take over what mmdet found, the surest first."""
    found = found[found.scores >= least].cpu()
    scores = found.scores.float().numpy()
    order = np.argsort(-scores, kind="stable")
    return Instances(
        image=rgb,
        classes=classes,
        boxes=found.bboxes.float().numpy()[order],
        scores=scores[order],
        labels=found.labels.numpy()[order],
        masks=Masks.of(found.masks.numpy(), order) if "masks" in found else None,
    )


def _segments(
    found: Any, rgb: np.ndarray, classes: tuple[str, ...], things: Sequence[str], least: float
) -> Segments:
    """Take over mmdet's segments, numbered from 1, the largest first."""
    numbers, place = np.unique(found.sem_seg[0].cpu().numpy(), return_inverse=True)
    areas = np.bincount(place.ravel(), minlength=len(numbers))
    ids = np.zeros(len(numbers), np.int64)
    rows: list[Segment] = []
    for i in np.argsort(-areas, kind="stable"):
        score = found.scores.get(int(numbers[i]))
        if score is None or score < least:
            continue
        label = int(numbers[i] % INSTANCE_OFFSET)
        name, ids[i] = classes[label], len(rows) + 1
        rows.append(Segment(len(rows) + 1, name, label, name in things, score, int(areas[i])))
    shape = found.sem_seg.shape[-2:]
    return Segments(image=rgb, classes=classes, ids=ids[place].reshape(shape), rows=tuple(rows))
