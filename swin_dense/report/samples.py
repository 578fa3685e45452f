"""Training samples as pictures: what a model sees and is told, and one page that shows them."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from swin_dense.datasets import colours
from swin_dense.datasets.label_maps import IGNORE
from swin_dense.report import pictures
from swin_dense.report.masks import Masks

STRIPE = 8  # pixels between two lines of what is not judged
GREY = (150, 150, 150)


@dataclasses.dataclass
class Sample:
    """One sample after the pipeline, as the model gets it.

    Args:
        rgb: (H, W, 3) uint8.
        classes: the names that labels count.
        boxes: (N, 4) left, top, right, bottom; None where the task has none.
        labels: of the boxes.
        masks: (N, H, W) bool; None where there are none.
        ignored_boxes, ignored_masks: the same of crowds and others that are not judged.
        label_map: (H, W) index, 255 where no pixel is judged; None where the task has none.
        source: the image's file.
        steps: what each step of the pipeline did.
    """

    rgb: np.ndarray
    classes: tuple[str, ...]
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    masks: np.ndarray | None = None
    ignored_boxes: np.ndarray | None = None
    ignored_masks: np.ndarray | None = None
    label_map: np.ndarray | None = None
    source: str = ""
    steps: Sequence[str] = ()


def draw(sample: Sample) -> np.ndarray:
    """Draw a sample: objects in the colours of their classes, label maps with a legend.

    What is not judged is hatched.

    Returns:
        (H', W', 3) uint8; a small image is enlarged.
    """
    palette = colours.palette(len(sample.classes))
    rgb, hidden = sample.rgb, np.zeros(sample.rgb.shape[:2], bool)
    if sample.label_map is not None:
        hidden |= sample.label_map == IGNORE
    for mask in () if sample.ignored_masks is None else sample.ignored_masks:
        hidden |= mask
    if sample.ignored_masks is None and sample.ignored_boxes is not None:
        for left, top, right, bottom in sample.ignored_boxes.round().astype(int):
            hidden[max(top, 0) : bottom, max(left, 0) : right] = True
    rgb = hatched(rgb, hidden)
    if sample.label_map is not None and sample.boxes is None:
        known = np.where(sample.label_map == IGNORE, len(sample.classes), sample.label_map)
        return pictures.label_overlay(rgb, known, (*sample.classes, "not judged"), [*palette, GREY])
    if sample.label_map is not None:
        rgb = _stained(rgb, sample.label_map, palette)
    boxes = np.zeros((0, 4)) if sample.boxes is None else sample.boxes
    labels = np.zeros(0, int) if sample.labels is None else sample.labels
    order = np.argsort((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
    masks = None if sample.masks is None else Masks.of(sample.masks, order)
    drawn = pictures.instance_overlay(
        rgb,
        boxes[order],
        masks,
        [sample.classes[i] for i in labels[order]],
        [palette[i] for i in labels[order]],
    )
    if sample.label_map is None:
        return drawn
    counts = np.bincount(sample.label_map.ravel(), minlength=256)[: len(palette)]
    shares = counts / sample.label_map.size
    return pictures.with_legend(
        drawn,
        [
            (palette[i], f"{sample.classes[i]}  {shares[i]:.1%}")
            for i in np.argsort(-shares, kind="stable")
            if shares[i]
        ],
    )


def hatched(rgb: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Lay slanted grey stripes over the pixels (H, W) that are hidden: (H, W, 3) uint8."""
    rows, columns = np.indices(hidden.shape)
    lines = hidden & ((rows + columns) % STRIPE < STRIPE // 2)
    found = rgb.copy()
    found[lines] = GREY
    return found


def _stained(
    rgb: np.ndarray, label_map: np.ndarray, palette: list[tuple[int, int, int]]
) -> np.ndarray:
    """Lay the colours of a label map lightly over an image whose objects are drawn too."""
    table = np.zeros((256, 3), np.float32)
    table[: len(palette)] = palette
    judged = label_map != IGNORE
    found = rgb.astype(np.float32)
    found[judged] = 0.7 * found[judged] + 0.3 * table[label_map[judged]]
    return found.round().astype(np.uint8)


def write_page(folder: Path, title: str, samples: Sequence[tuple[str, Sample]]) -> Path:
    """Write index.html beside the pictures: each with its source, counts and steps."""
    parts = []
    for name, sample in samples:
        height, width = sample.rgb.shape[:2]
        told = [f"{width} x {height} pixels"]
        if sample.labels is not None:
            counts = np.bincount(sample.labels, minlength=len(sample.classes))
            objects = [f"{n} {name}" for name, n in zip(sample.classes, counts, strict=True) if n]
            told.append(", ".join(objects) or "no object")
        if sample.ignored_boxes is not None and len(sample.ignored_boxes):
            told.append(f"{len(sample.ignored_boxes)} not judged")
        steps = "".join(f"<li>{html.escape(step)}</li>" for step in sample.steps)
        parts.append(
            f"<section><h2>{html.escape(Path(sample.source).name)}</h2>"
            f'<p>{html.escape("; ".join(told))}</p><div><img src="{html.escape(name)}" '
            f'alt="{html.escape(Path(sample.source).name)}"><ol>{steps}</ol></div></section>'
        )
    style = (
        "body{font:15px/1.4 sans-serif;margin:2em auto;max-width:1200px;padding:0 1em}"
        "section{border-top:1px solid #ccc;padding:.5em 0}section div{display:flex;gap:1.5em;"
        "align-items:flex-start;flex-wrap:wrap}img{max-width:min(100%,760px);height:auto}"
        "ol{margin:0;padding-left:1.5em;flex:1 1 300px;font-size:13px}h2{font-size:16px;margin:0}"
        "p{margin:.2em 0 .6em;color:#444}"
    )
    path = folder / "index.html"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n",
        encoding="utf-8",
    )
    return path
